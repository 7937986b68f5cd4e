//! A namespace of a scenario: what is applied to it, and what is asked from its pods.
//!
//! Invariant: a namespace belongs to one test; nothing in it is shared with another.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Answer, App, Mesh, field};
use crate::cluster::Cluster;
use crate::program;

/// A namespace.
#[derive(Debug)]
pub struct Space<'m> {
    /// The mesh it is on.
    pub mesh: &'m Mesh,
    /// Its name.
    pub name: String,
}

impl<'m> Space<'m> {
    pub(super) fn new(mesh: &'m Mesh, name: &str) -> Self {
        Self { mesh, name: name.to_owned() }
    }

    fn cluster(&self) -> &'m Cluster {
        &self.mesh.cluster
    }

    /// Runs `kubectl` in this namespace.
    ///
    /// # Errors
    /// What it wrote to its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.cluster().kubectl(&[&["--namespace", &self.name], arguments].concat())
    }

    /// Applies manifests, which name no namespace, here; gives what became of each, with every warning.
    ///
    /// # Errors
    /// What was refused, and why.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        let mut command = self.cluster().command("kubectl");
        command.args(["--namespace", &self.name, "apply", "--server-side", "--filename=-"]);
        let output = program::fed(&mut command, manifests.as_bytes())?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            bail!("{said}\nof:\n{manifests}");
        }
        Ok(said)
    }

    /// Applies apps and waits until all their pods are ready.
    ///
    /// # Errors
    /// What was refused, or what the namespace looks like.
    pub fn run(&self, apps: &[App]) -> anyhow::Result<()> {
        let manifests: Vec<String> = apps.iter().map(App::manifests).collect();
        self.apply(&manifests.join("\n---\n"))?;
        apps.iter().try_for_each(|app| self.rolled_out(&format!("deployment/{}", app.deployment())))
    }

    /// Waits until a workload has rolled out whole.
    ///
    /// # Errors
    /// It has not in time; with what the namespace looks like.
    pub fn rolled_out(&self, workload: &str) -> anyhow::Result<()> {
        self.cluster().rolled_out(&self.name, workload)
    }

    /// [`Cluster::wait_until`] with this namespace's picture.
    ///
    /// # Errors
    /// It was not found in time.
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        self.cluster().wait_until(&self.name, what, look)
    }

    /// Runs `weft-load` in a workload's container; gives each line it told.
    ///
    /// # Errors
    /// It could not be run.
    pub fn load(&self, from: &str, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let told = self.cluster().exec(&self.name, from, "app", &[&["/weft-load"], arguments].concat())?;
        told.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// One request from a workload.
    ///
    /// # Errors
    /// It could not be made; a request that fails is an answer.
    pub fn get(&self, from: &str, url: &str, flags: &[&str]) -> anyhow::Result<Answer> {
        let told = self.load(from, &[&["get", url], flags].concat())?;
        Ok(Answer(told.into_iter().next().unwrap_or_default()))
    }

    /// Asks until the answer is as it should be.
    ///
    /// # Errors
    /// It never was; with the last answer.
    pub fn get_until(
        &self,
        from: &str,
        url: &str,
        flags: &[&str],
        good: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<Answer> {
        self.until(&format!("the right answer from {url}"), || {
            let answer = self.get(from, url, flags)?;
            if good(&answer) { Ok(Some(answer)) } else { bail!("{answer:?}") }
        })
    }

    /// The pods with a label (`app=server`), as objects.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn pods(&self, label: &str) -> anyhow::Result<Vec<Value>> {
        let text = self.kubectl(&["get", "pods", "--selector", label, "--output=json"])?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(field(&list, "items").as_array().cloned().unwrap_or_default())
    }

    /// The only pod with a label: its name and its address.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn pod(&self, label: &str) -> anyhow::Result<(String, String)> {
        let pods = self.pods(label)?;
        let [pod] = pods.as_slice() else { bail!("{} pods are {label}", pods.len()) };
        let text = |path| field(pod, path).as_str().unwrap_or_default().to_owned();
        Ok((text("metadata.name"), text("status.podIP")))
    }

    /// An object of this namespace (`httproute/split`).
    ///
    /// # Errors
    /// There is none.
    pub fn object(&self, name: &str) -> anyhow::Result<Value> {
        self.mesh.object(&self.name, name)
    }

    /// The access log of the sidecars of the pods with a label.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn access_log(&self, label: &str) -> anyhow::Result<Vec<Value>> {
        let arguments =
            ["logs", "--selector", label, "--container=weft-proxy", "--tail=-1", "--max-log-requests=20"];
        let lines = self.kubectl(&arguments)?;
        let entries = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(entries.filter(|entry| entry.get("direction").is_some()).collect())
    }

    /// The first entry of the access log that is as it should be, once it is written.
    ///
    /// # Errors
    /// There is none.
    pub fn logged(&self, label: &str, good: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        self.until(&format!("an entry in the access log of {label}"), || {
            let log = self.access_log(label)?;
            let seen = log.len();
            let found = log.into_iter().find(|entry| good(entry));
            found.map(Some).with_context(|| format!("not among {seen} entries"))
        })
    }

    /// A steady client: `weft-load load` with these arguments, running when this returns.
    ///
    /// # Errors
    /// It does not start.
    pub fn steadily(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Load<'_>> {
        self.apply(&super::load_manifest(name, arguments))?;
        self.rolled_out(&format!("deployment/{name}"))?;
        let load = Load { space: self, name: name.to_owned() };
        load.successes_after(20)?;
        Ok(load)
    }
}

/// A steady client.
#[derive(Debug)]
pub struct Load<'s> {
    space: &'s Space<'s>,
    name: String,
}

impl Load<'_> {
    /// The counts so far.
    ///
    /// # Errors
    /// The client does not answer.
    pub fn report(&self) -> anyhow::Result<Value> {
        let from = format!("deployment/{}", self.name);
        let answer = self.space.get(&from, "http://127.0.0.1:9099/", &[])?;
        Ok(serde_json::from_str(answer.body())?)
    }

    /// Waits until so many more requests have succeeded than now; gives the report.
    ///
    /// # Errors
    /// They have not in time.
    pub fn successes_after(&self, more: u64) -> anyhow::Result<Value> {
        let mut goal = None;
        self.space.until(&format!("{more} more successes of {}", self.name), || {
            let report = self.report()?;
            let succeeded = field(&report, "succeeded").as_u64().unwrap_or_default();
            let goal = *goal.get_or_insert(succeeded + more);
            if succeeded >= goal { Ok(Some(report)) } else { bail!("{report}") }
        })
    }

    /// Follows the client's log; the last line of it is its last report.
    ///
    /// # Errors
    /// `kubectl` cannot be started.
    pub fn follow(&self, pod: &str) -> anyhow::Result<LastWord> {
        let mut command = self.space.cluster().command("kubectl");
        command.args(["--namespace", &self.space.name, "logs", "--follow", pod, "--container=app"]);
        let mut follower = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(follower.stdout.take().context("a pipe was asked for")?);
        Ok(LastWord { follower, lines })
    }
}

/// Waits for what a client says when it ends.
#[derive(Debug)]
pub struct LastWord {
    follower: Child,
    lines: BufReader<ChildStdout>,
}

impl LastWord {
    /// The client's last report, once it has ended.
    ///
    /// # Errors
    /// It said none.
    pub fn hear(mut self) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        for line in self.lines.lines() {
            last = serde_json::from_str(&line?).unwrap_or(last);
        }
        self.follower.wait()?;
        if field(&last, "ended") != &Value::Bool(true) {
            bail!("the client ended without a report: {last}");
        }
        Ok(last)
    }
}
