//! One process of a mesh: started, waited for, looked at, ended.
//!
//! Invariant: it does not outlive this value, nor the thread that started it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::look::until;
use super::place::Place;

/// A running process.
#[derive(Debug)]
pub struct Part {
    child: Child,
    name: String,
    ready: PathBuf,
    log: PathBuf,
    /// Where its admin server is, once that is known.
    pub admin: Option<SocketAddr>,
}

impl Part {
    pub(super) fn spawn(place: &Place, name: &str, words: &[String]) -> Self {
        let (ready, log) = (place.path(&format!("{name}.ready")), place.path(&format!("{name}.log")));
        let _ = std::fs::remove_file(&ready);
        let file = File::options().append(true).create(true).open(&log).unwrap();
        let mut command = Command::new(place.program());
        command.args(words).arg(format!("--ready-file={}", ready.display()));
        // Only flags count: what the developer's shell says must not change a test.
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("WEFT_")) {
                command.env_remove(key);
            }
        }
        let child = command
            .env("WEFT_EXIT_WITH_PARENT", "true")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, name: name.to_owned(), ready, log, admin: None }
    }

    /// What it says when it is ready.
    pub(super) async fn ready(&mut self) -> Value {
        let what = format!("{} is ready", self.name);
        until(&what, async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended ({status}):\n{}", self.name, self.tail());
            }
            let text = std::fs::read_to_string(&self.ready).ok()?;
            serde_json::from_str(&text).ok()
        })
        .await
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Asks it to leave in good order.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Makes it stand still, and go on again.
    pub fn freeze(&self, frozen: bool) {
        kill_process(self.pid(), if frozen { Signal::STOP } else { Signal::CONT }).unwrap();
    }

    /// How it ended, once it has.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ended(&mut self) -> ExitStatus {
        until(&format!("{} ends", self.name), async || self.child.try_wait().unwrap()).await
    }

    /// Memory that is resident now, in bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and it is still to be reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said last:\n{}", self.name, self.tail());
        }
    }
}
