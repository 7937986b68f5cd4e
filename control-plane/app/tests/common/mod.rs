//! What the tests share: a control plane on free ports with a folder of its own, and a client that
//! does what a sidecar does, byte for byte on the wire.
//!
//! Invariant: every wait has a generous deadline, and nothing waits by sleeping.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod client;
pub mod manifests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_control_plane::log::LogLevel;
use weft_control_plane::{ControlPlane, RunArgs};

/// Only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that leaves with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weft-cpt-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("manifests")).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn manifest(&self, name: &str) -> PathBuf {
        self.0.join("manifests").join(name)
    }

    /// Saves as editors do: another name, then a rename.
    pub fn save(&self, name: &str, text: &str) {
        let temporary = self.manifest(&format!(".{name}.swp"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, self.manifest(name)).unwrap();
    }

    pub fn tokens(&self, text: &str) {
        weft_control_plane::files::write_atomically(&self.0.join("tokens.yaml"), text.as_bytes(), 0o600)
            .unwrap();
    }

    pub fn args(&self) -> RunArgs {
        RunArgs {
            exit_with_parent: false,
            manifests: Some(self.0.join("manifests")),
            cluster: weft_control_plane::args::ClusterArgs::default(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            state: None,
            join_tokens: Some(self.0.join("tokens.yaml")),
            trust_domain: "cluster.local".to_owned(),
            write_trust_anchors: None,
            certificate_life: Duration::from_secs(3600),
            intermediate: false,
            observers: Vec::new(),
            max_streams: 100,
            ack_timeout: Duration::from_secs(30),
            ready_file: None,
            log: "info".to_owned(),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a control plane on the folder and waits for its first good state.
pub async fn start(args: &RunArgs) -> ControlPlane {
    let mut control_plane = ControlPlane::start(args, LogLevel::default()).await.unwrap();
    tokio::time::timeout(PATIENCE, control_plane.ready()).await.expect("ready in time");
    control_plane
}

/// Asks the administrator's side.
pub async fn get(control_plane: &ControlPlane, path: &str) -> (u16, String) {
    ask(control_plane, "GET", path, "").await
}

pub async fn ask(control_plane: &ControlPlane, method: &str, path: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(control_plane.admin).await.unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub async fn status(control_plane: &ControlPlane) -> serde_json::Value {
    let (code, body) = get(control_plane, "/status").await;
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}

/// Asks for the status until it is as expected.
pub async fn status_until(
    control_plane: &ControlPlane,
    expected: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    let asking = async {
        loop {
            last = status(control_plane).await;
            if expected(&last) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, asking).await;
    assert!(in_time.is_ok(), "the status never was as expected: {last:#}");
    last
}
