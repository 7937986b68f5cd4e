//! The first two processes inside the namespaces: one that buries orphans, one that boots the node.
//!
//! Invariant: the first ends when its standard input does, and the kernel then ends everything inside.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::process::{WaitOptions, wait};

use super::{State, boot::Node, keeper};
use crate::program;

/// Process 1 of the namespaces.
///
/// # Errors
/// The second process cannot be started, or failed.
pub fn init(folder: &Path) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        keeper::await_end(&mut std::io::stdin());
        std::process::exit(0);
    });
    let mut command = Command::new(program::weft_dev()?);
    let boot = command.args(["node", "boot"]).arg(folder).stdin(Stdio::null()).spawn()?.id();
    loop {
        // Shims of containers become our children when what started them ends.
        let Some((pid, _)) = wait(WaitOptions::empty()).context("waiting for children")? else { continue };
        if u32::try_from(pid.as_raw_nonzero().get()) == Ok(boot) {
            anyhow::bail!("the node stopped");
        }
    }
}

/// The second process: prepares the node, starts its programs and watches them.
///
/// # Errors
/// What did not become ready, or what ended, with the end of its log.
pub fn boot(folder: &Path) -> anyhow::Result<()> {
    let mut node = Node::new(State::at(folder))?;
    node.prepare()?;
    node.start()?;
    std::fs::write(folder.join("up"), "")?;
    node.watch()
}
