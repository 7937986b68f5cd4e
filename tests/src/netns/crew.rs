//! The mesh's real processes in network namespaces: each in the one it is given, their files in one folder.
//!
//! Invariant: dropping it ends the processes, shows their logs if the test has failed, and removes the folder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "harness: what fails here fails the test")]

use std::fs::File;
use std::hash::BuildHasher as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser as _;
use serde_json::Value;
use weft_proxy::init::{self, InitArgs};

use super::{Namespace, Running, has_other_users};
use crate::mesh::until;

/// The group of the sidecars: by it their own connections are told from the application's.
const GROUP: u32 = 4711;

/// A control plane on a folder of manifests, and sidecars.
#[derive(Debug)]
pub struct Crew {
    program: &'static str,
    folder: PathBuf,
    running: Vec<Running>,
}

impl Crew {
    /// Nobody runs yet; `program` is `weft-mesh-part`.
    pub fn new(program: &'static str, manifests: &str, tokens: &str) -> Self {
        // By chance, because process ids repeat in namespaces of their own.
        let chance = std::hash::RandomState::new().hash_one(manifests);
        let folder = std::env::temp_dir().join(format!("weft-crew-{chance:016x}"));
        std::fs::create_dir_all(folder.join("manifests")).unwrap();
        std::fs::write(folder.join("manifests/all.yaml"), manifests).unwrap();
        std::fs::write(folder.join("tokens.yaml"), tokens).unwrap();
        Self { program, folder, running: Vec::new() }
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Starts a process of the mesh and waits until it is ready.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the process running until the crew is dropped.
    pub async fn start(&mut self, namespace: &Namespace, name: &str, flags: &[String]) {
        let ready = self.path(&format!("{name}.ready"));
        let log = File::create(self.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(self.program);
        command.args(flags).arg(format!("--ready-file={ready}")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if has_other_users() {
            command.gid(GROUP);
        }
        self.running.push(namespace.spawn(&mut command).unwrap());
        until(&format!("{name} is ready"), async || Path::new(&ready).exists().then_some(())).await;
    }

    /// Starts the control plane, and waits until it is ready.
    ///
    /// # Cancel safety
    /// As [`start`](Self::start).
    pub async fn start_control_plane(&mut self, namespace: &Namespace, listen: &str) {
        let flags = [
            "control-plane".to_owned(),
            format!("--listen={listen}"),
            "--admin=127.0.0.1:0".to_owned(),
            format!("--manifests={}", self.path("manifests")),
            format!("--join-tokens={}", self.path("tokens.yaml")),
            format!("--write-trust-anchors={}", self.path("anchors.pem")),
        ];
        self.start(namespace, "control-plane", &flags).await;
    }

    /// The first line of a pod's access log that is as asked, once there is one.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn logged(&self, pod: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let path = self.path(&format!("{pod}.access.log"));
        until(what, async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|line| is_it(line))
        })
        .await
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.running.clear();
        if std::thread::panicking() {
            let logs = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
            for log in logs.filter(|log| log.path().extension().is_some_and(|end| end == "log")) {
                let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                eprintln!("--- {} said:\n{text}", log.path().display());
            }
        }
        // A folder that stays is no failure.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `weft-proxy init` in a pod. Where root is the only user there is, the sidecars are told from the application
/// by where they go: to `services`.
pub fn capture(namespace: &Namespace, services: &str) {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        init: InitArgs,
    }
    let group = format!("--proxy-gid={GROUP}");
    let services = format!("--only-outbound-cidrs={services}");
    let flag = if has_other_users() { &group } else { &services };
    let args = Line::try_parse_from(["init", flag]).unwrap().init;
    namespace.run(|| init::run(args)).unwrap();
}
