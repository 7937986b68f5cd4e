//! Waiting for something to become true, and telling what the cluster looks like when it does not.
//!
//! Invariant: a failed wait shows events and the state of the namespace's pods with the end of their
//! logs: what one would look at next.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::anyhow;

use super::Cluster;
use crate::look;

/// How long a wait lasts that names no time of its own. Source: ten times what a rollout takes on an
/// idle machine with two processors.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks. Source: each starts a process of 50 ms.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of a container's log that are shown.
const LOG_LINES: &str = "--tail=30";

impl Cluster {
    /// Waits until `look` finds what it looks for, and gives that.
    ///
    /// # Errors
    /// It was not found in time, or the last look failed: with what `namespace` looks like.
    pub fn wait_until<T>(
        &self,
        namespace: &str,
        what: &str,
        look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.wait_for(namespace, what, DEADLINE, look)
    }

    /// [`wait_until`](Self::wait_until) with a deadline of its own. An attempt that fails is tried again: what
    /// is not there yet is often an error.
    ///
    /// # Errors
    /// It was not found in time: with the last look's error and what `namespace` looks like.
    pub fn wait_for<T>(
        &self,
        namespace: &str,
        what: &str,
        deadline: Duration,
        mut attempt: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let mut last = String::new();
        let found = look::until(PAUSE, deadline, || {
            let seen = attempt();
            last = seen.as_ref().err().map(|error| format!("\nlast: {error:#}")).unwrap_or_default();
            seen.ok().flatten()
        });
        found.ok_or_else(|| {
            let seen = self.picture(namespace);
            anyhow!("waited {deadline:?} in vain for {what}{last}\n{seen}")
        })
    }

    /// What a person would look at when something in a namespace does not work.
    pub fn picture(&self, namespace: &str) -> String {
        let looks: [&[&str]; 3] = [
            &["get", "pods,services,endpointslices", "--output=wide"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["describe", "pods"],
        ];
        let mut picture = String::new();
        for look in looks {
            self.look(&mut picture, &[look, &["--namespace", namespace]].concat());
        }
        let names = self.kubectl(&["get", "pods", "--namespace", namespace, "--output=name"]);
        for pod in names.unwrap_or_default().lines() {
            self.look(&mut picture, &["logs", "--namespace", namespace, pod, "--all-containers", LOG_LINES]);
        }
        picture
    }

    fn look(&self, picture: &mut String, arguments: &[&str]) {
        let said = self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        // Writing to a text does not fail.
        let _ = writeln!(picture, "--- kubectl {}\n{}", arguments.join(" "), said.trim_end());
    }
}
