//! What a test does to a cluster: `kubectl`, in the words of the scenarios.
//!
//! Invariant: nothing is asked of the API server but through the real `kubectl`, as a user would.

use std::process::Output;

use super::Cluster;
use crate::program;

impl Cluster {
    /// Runs `kubectl` and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// What it wrote to its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        program::output(self.command("kubectl").args(arguments))
    }

    /// Runs `kubectl`, whether it succeeds or not, reading `input`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        program::fed(self.command("kubectl").args(arguments), input.as_bytes())
    }

    /// Applies manifests; gives what became of each.
    ///
    /// # Errors
    /// What was refused, and why.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        let arguments = ["apply", "--server-side", "--filename=-"];
        program::checked(self.command("kubectl").args(arguments), manifests.as_bytes())
    }

    /// What the server would say to manifests; nothing of them stays.
    ///
    /// # Errors
    /// What would be refused, and why.
    pub fn dry_run(&self, manifests: &str) -> anyhow::Result<String> {
        let arguments = ["apply", "--dry-run=server", "--filename=-"];
        program::checked(self.command("kubectl").args(arguments), manifests.as_bytes())
    }

    /// Deletes what manifests name, without waiting for it to be gone.
    ///
    /// # Errors
    /// What could not be deleted, and why.
    pub fn delete(&self, manifests: &str) -> anyhow::Result<String> {
        let arguments = ["delete", "--wait=false", "--ignore-not-found", "--filename=-"];
        program::checked(self.command("kubectl").args(arguments), manifests.as_bytes())
    }

    /// Makes a namespace with labels (`key=value`); pods can be made in it when this returns.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn namespace(&self, name: &str, labels: &[&str]) -> anyhow::Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        if !labels.is_empty() {
            self.kubectl(&[&["label", "namespace", name], labels].concat())?;
        }
        let account = || {
            let found = self.try_kubectl(&["get", "serviceaccount", "default", "--namespace", name], "")?;
            Ok(found.status.success().then_some(()))
        };
        self.wait_until(name, "the namespace's default service account", account)
    }

    /// Runs a command in a container of a pod (`web-0`) or of a workload's first (`deployment/web`).
    ///
    /// # Errors
    /// The command failed; with what it wrote to its standard error.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> anyhow::Result<String> {
        let start = ["exec", "--namespace", namespace, pod, "--container", container, "--"];
        self.kubectl(&[&start, command].concat())
    }

    /// What a container has written so far.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<String> {
        self.kubectl(&["logs", "--namespace", namespace, pod, "--container", container])
    }

    /// Waits until a workload (`deployment/web`, `statefulset/db`) has rolled out whole.
    ///
    /// # Errors
    /// It has not in time; with what its namespace looks like.
    pub fn rolled_out(&self, namespace: &str, workload: &str) -> anyhow::Result<()> {
        let arguments = ["rollout", "status", "--namespace", namespace, workload, "--timeout=5s"];
        let rolled = || Ok(self.try_kubectl(&arguments, "")?.status.success().then_some(()));
        self.wait_until(namespace, &format!("{workload} to roll out"), rolled)
    }
}
