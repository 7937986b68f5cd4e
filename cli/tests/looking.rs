//! `weft stat` and `weft tap` as a person types them, at the mesh of a running demo.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A demo, until it is dropped.
struct Demo {
    process: Child,
    /// What it says to add to a question.
    flags: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut process =
            Command::new(env!("CARGO_BIN_EXE_weft")).arg("demo").stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = said.find(|line| line.contains("Look at it yourself")).expect("the demo's hint");
        let (_, flags) = line.split_once(" stat ").unwrap();
        let flags = flags.split_whitespace().map(str::to_owned).collect();
        // Whoever nobody reads would stand still.
        std::thread::spawn(move || said.for_each(drop));
        Self { process, flags }
    }

    fn weft(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(words).args(&self.flags).stdin(Stdio::null()).output().unwrap()
    }

    fn told(&self, words: &[&str]) -> String {
        let output = self.weft(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Shows `weft stat --watch` on a terminal, ends it by `key`, and gives all that the terminal was sent.
fn watched(demo: &Demo, key: &[u8]) -> String {
    let weft = env!("CARGO_BIN_EXE_weft");
    // A terminal that nobody sits at has no size of its own.
    let words = format!("stty cols 160 rows 40; {weft} stat --watch --every 1 {}", demo.flags.join(" "));
    let mut terminal = Command::new("timeout")
        .args([
            "--foreground",
            "60",
            "script",
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &words,
            "/dev/null",
        ])
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut more = [0; 4096];
    let mut keys = terminal.stdin.take();
    loop {
        let count = screen.read(&mut more).unwrap();
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&more[..count]);
        // Drawn once: now the key is pressed, once.
        if String::from_utf8_lossy(&seen).contains("q ends")
            && let Some(mut keys) = keys.take()
        {
            keys.write_all(key).unwrap();
            std::mem::forget(keys);
        }
    }
    let status = terminal.wait().unwrap();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(status.success(), "{status}: {seen:?}");
    seen
}

#[test]
fn the_terminal_is_given_back_at_q_and_at_ctrl_c() {
    let demo = Demo::start();
    for key in [&b"q"[..], b"\x03"] {
        let seen = watched(&demo, key);
        let (entered, left) = (seen.find("\x1b[?1049h"), seen.rfind("\x1b[?1049l"));
        assert!(entered.is_some() && left > entered, "{seen:?}");
        assert!(
            seen.contains("success") && seen.rfind("\x1b[?25h") > entered,
            "the cursor is back: {seen:?}"
        );
    }
}

#[test]
fn a_person_sees_the_demos_edges_and_requests_and_is_told_what_is_wrong() {
    let demo = Demo::start();
    let table = demo.told(&["stat"]);
    assert!(table.starts_with("source") && table.contains("client") && table.contains("server"), "{table}");
    let page: Value = serde_json::from_str(&demo.told(&["stat", "svc/cart.shop", "-o", "json"])).unwrap();
    let edges = page["edges"].as_array().unwrap();
    assert!(!edges.is_empty(), "{page}");
    assert!(edges.iter().all(|edge| edge["destination"]["name"] == "cart"), "{page}");
    assert_eq!(page["silent"], serde_json::json!([]), "{page}");
    let wide = demo.told(&["stat", "pod", "-o", "wide"]);
    assert!(wide.contains("shop/cart:8080"), "{wide}");

    let lines = demo.told(&["tap", "pod/shop-0.shop", "--count", "5", "--for", "60", "-o", "json"]);
    assert_eq!(lines.lines().count(), 5);
    for line in lines.lines() {
        let one: Value = serde_json::from_str(line).unwrap();
        assert_eq!(one["workload"], "shop/shop-0", "{one}");
    }
    let text = demo.told(&["tap", "--to", "svc/cart.shop", "--count", "1", "--for", "60"]);
    assert!(text.contains(" -> ") && text.contains("mtls"), "{text}");

    let wrong = demo.weft(&["stat", "moon/cart"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("deploy, pod, svc or ns"), "{wrong:?}");
    let mut stranger = Command::new(env!("CARGO_BIN_EXE_weft"));
    let without = demo.flags.iter().take_while(|flag| *flag != "--join-token-file");
    let refused = stranger.arg("stat").args(without).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--join-token-file") && said.contains("--observer"), "{said}");
}
