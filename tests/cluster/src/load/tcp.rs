//! One line over TCP.
//!
//! Invariant: what the server says before it is asked is told apart from its answer.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::client::within;

/// One line.
#[derive(Debug, Args)]
pub(crate) struct TcpArgs {
    /// `host:port`.
    address: String,
    #[arg(long, default_value = "hello")]
    say: String,
    /// Hear a line before saying one.
    #[arg(long)]
    greeted: bool,
    /// Seconds for all of it.
    #[arg(long, default_value_t = 20)]
    timeout: u64,
}

/// Says it, and tells what was heard.
pub(crate) async fn run(args: &TcpArgs) -> anyhow::Result<()> {
    let talk = async {
        let stream = TcpStream::connect(&args.address).await.map_err(|error| format!("connect: {error}"))?;
        let mut stream = BufReader::new(stream);
        let (mut greeting, mut answer) = (String::new(), String::new());
        let lost = |error: std::io::Error| format!("talk: {error}");
        if args.greeted {
            stream.read_line(&mut greeting).await.map_err(lost)?;
        }
        stream.write_all(format!("{}\n", args.say).as_bytes()).await.map_err(lost)?;
        stream.read_line(&mut answer).await.map_err(lost)?;
        if answer.is_empty() {
            return Err("talk: closed without an answer".to_owned());
        }
        Ok(json!({"greeting": greeting.trim_end(), "answer": answer.trim_end()}))
    };
    let talked = within(Duration::from_secs(args.timeout), talk).await;
    crate::tell(&talked.unwrap_or_else(|error| json!({ "error": error })))
}
