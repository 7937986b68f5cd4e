//! Rows of a table, and the one way in which they are checked.
//!
//! Invariant: all rows are tried; a test fails once, with everything that was wrong.

use std::net::SocketAddr;

use weft_tests::raw::client::Client;
use weft_tests::raw::{PROBE, Rig};

/// A rig with default limits.
pub(crate) fn rig() -> Rig {
    rig_with(&[])
}

/// A rig whose sidecar has these flags.
pub(crate) fn rig_with(flags: &[&str]) -> Rig {
    Rig::start(env!("CARGO_BIN_EXE_weft-raw-sidecar"), flags)
}

/// What happens to the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It serves another request.
    Goes,
    /// It is closed.
    Closes,
}

/// One rule.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) input: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) then: Then,
    /// What reaches the application, whole and in order; empty: nothing.
    pub(crate) reached: Vec<String>,
}

/// A request that is refused: nothing of it arrives.
pub(crate) fn refused(name: &'static str, input: impl AsRef<[u8]>, status: u16, then: Then) -> Case {
    Case { name, input: input.as_ref().to_vec(), status, then, reached: Vec::new() }
}

/// A request that passes, and arrives as `reached`.
pub(crate) fn passes(name: &'static str, input: impl AsRef<[u8]>, then: Then, reached: &str) -> Case {
    Case { name, input: input.as_ref().to_vec(), status: 200, then, reached: vec![reached.to_owned()] }
}

/// Tries all rows.
pub(crate) fn check(rig: &Rig, at: SocketAddr, cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| one(rig, at, case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn one(rig: &Rig, at: SocketAddr, case: &Case) -> Result<(), String> {
    let _ = rig.application.seen();
    let mut client = Client::connect(at);
    client.send(&case.input);
    let answer = client.answer().ok_or_else(|| format!("{}: closed without an answer", case.name))?;
    let then = match case.then {
        Then::Closes if answer.status == case.status => {
            if client.is_closed() {
                Then::Closes
            } else {
                Then::Goes
            }
        }
        _ => {
            client.send(PROBE);
            if client.answer().is_some_and(|probe| probe.status == 200) { Then::Goes } else { Then::Closes }
        }
    };
    drop(client);
    rig.serves(at);
    let reached: Vec<String> = rig.application.seen().iter().map(|request| without_trace(request)).collect();
    if (answer.status, then, &reached) == (case.status, case.then, &case.reached) {
        return Ok(());
    }
    Err(format!(
        "{}: {:?}\n   want {} {:?} {:?}\n   got  {} {then:?} {reached:?}",
        case.name,
        String::from_utf8_lossy(&case.input).chars().take(200).collect::<String>(),
        case.status,
        case.then,
        case.reached,
        answer.status,
    ))
}

/// A request without the fields of its trace, which differ each time.
pub(crate) fn without_trace(request: &str) -> String {
    let kept = request.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("trace"));
    kept.collect()
}
