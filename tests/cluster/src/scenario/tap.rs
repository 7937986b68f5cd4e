//! What the node's interfaces saw: who sent bytes to whom, and whether they could be read.
//!
//! Invariant: a tap listens before it is given out, so that nothing sent afterwards is missed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

/// A tap that listens.
#[derive(Debug)]
pub struct Tap {
    process: Child,
    told: BufReader<ChildStdout>,
}

/// One direction of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stream {
    /// Address that sent.
    pub from: String,
    /// Address that received.
    pub to: String,
    /// Port that sent.
    pub from_port: u16,
    /// Port that received.
    pub to_port: u16,
    /// Bytes.
    pub length: u64,
    /// The marker could be read.
    pub readable: bool,
    /// It begins as a TLS client does.
    pub tls_client: bool,
    /// It begins as a TLS server does that chose version 1.3.
    pub tls_1_3_server: bool,
}

impl Tap {
    pub(super) fn start(mut command: Command, marker: &str, port: u16) -> anyhow::Result<Self> {
        command.args(["tap", "--marker", marker, "--port", &port.to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut told = BufReader::new(process.stdout.take().context("a pipe was asked for")?);
        told.read_line(&mut String::new()).context("the tap's first word")?;
        Ok(Self { process, told })
    }

    /// Ends it; gives every stream that was seen.
    ///
    /// # Errors
    /// It told nothing that can be read.
    pub fn end(mut self) -> anyhow::Result<Vec<Stream>> {
        drop(self.process.stdin.take());
        let mut told = String::new();
        self.told.read_line(&mut told)?;
        self.process.wait()?;
        serde_json::from_str(&told).with_context(|| told)
    }
}
