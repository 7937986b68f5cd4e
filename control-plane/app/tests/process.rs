//! The program itself: its ready line, its files and its end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use common::{Folder, manifests};

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(admin: &str, request: &str, body: &str) -> String {
    let mut socket = std::net::TcpStream::connect(admin).unwrap();
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn it_says_where_it_is_writes_its_files_and_ends_on_sigterm() {
    let folder = Folder::new();
    folder.save("shop.yaml", manifests::SHOP);
    folder.tokens("[]");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut process = Process(
        Command::new(env!("CARGO_BIN_EXE_weft-control-plane"))
            .args([
                "run",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--manifests",
                &path("manifests"),
            ])
            .args(["--state", &path("state"), "--join-tokens", &path("tokens.yaml")])
            .args(["--ready-file", &path("ready.json"), "--write-trust-anchors", &path("anchors.pem")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["event"], "ready");
    for address in [&ready["grpc"], &ready["admin"]] {
        let address: std::net::SocketAddr = address.as_str().unwrap().parse().unwrap();
        assert_ne!(address.port(), 0);
        std::net::TcpStream::connect(address).unwrap();
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("ready.json")).unwrap(), line);
    let anchors = std::fs::read_to_string(folder.path().join("anchors.pem")).unwrap();
    assert!(anchors.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(anchors, std::fs::read_to_string(folder.path().join("state/root-cert.pem")).unwrap());

    let admin = ready["admin"].as_str().unwrap();
    assert_eq!(ask(admin, "GET /log", ""), "info\n");
    assert_eq!(ask(admin, "PUT /log", "warn,weft_control_plane=debug"), "weft_control_plane=debug,warn\n");
    assert_ne!(ask(admin, "PUT /log", "not a [filter"), "");
    assert_eq!(ask(admin, "GET /log", ""), "weft_control_plane=debug,warn\n");

    let signalled = Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    assert!(process.0.wait().unwrap().success(), "a signal is a good end");
}

#[test]
fn settings_that_make_no_sense_are_told_and_nothing_is_served() {
    let folder = Folder::new();
    let run = |extra: &[&str]| {
        let manifests = folder.path().join("manifests").display().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_weft-control-plane"))
            .args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--manifests", &manifests])
            .args(extra)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{extra:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&["--trust-domain", "No Name"]).contains("trust-domain"));
    assert!(run(&["--join-tokens", "/does/not/exist"]).contains("/does/not/exist"));
    assert!(run(&["--certificate-life", "never"]).contains("never"));
    assert!(run(&["--log", "not a [filter"]).contains("--log"));
}
