//! A bare relay without TLS, twice: what two hops through user space cost at least.
//! Before this: `peer`. After it: two child processes of the rig.
//!
//! Invariant: it copies bytes and knows nothing; its figures are a floor for requests, not for bulk.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};

use super::{Addresses, Job, Pair, Peer};
use crate::process::Process;

/// First argument of the rig when it is to be a relay.
pub(crate) const RELAY: &str = "child:relay";

/// Two byte relays.
pub(crate) struct Relay;

impl Peer for Relay {
    fn name(&self) -> &'static str {
        "relay"
    }

    fn version(&self) -> Result<String> {
        Ok("two byte relays, no TLS, 64 KiB buffers".into())
    }

    fn has_tls(&self) -> bool {
        false
    }

    fn start(&self, job: &Job<'_>) -> Result<Pair> {
        let at = Addresses::new(job)?;
        let start = |name: &str, from: SocketAddr, to: SocketAddr| {
            let args = [RELAY.to_owned(), from.to_string(), to.to_string()];
            Process::start(name, &std::env::current_exe()?, &args, job.workdir)
        };
        let proxies = [start("relay-a", at.call, at.hop)?, start("relay-b", at.hop, job.backend)?];
        Ok(Pair {
            call: at.call,
            hop: None,
            proxies: Some(proxies),
            others: Vec::new(),
            tap: None,
            _collector: None,
        })
    }
}

/// Relays until killed; `words` are the address to listen on and the one to connect to.
///
/// # Errors
/// The arguments are wrong or the socket cannot be opened.
pub(crate) fn serve(words: &[String]) -> Result<()> {
    let [from, to] = words else { anyhow::bail!("{RELAY} needs two addresses") };
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().context("from")?, to.parse().context("to")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(from).await?;
        loop {
            let (mut down, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut up = TcpStream::connect(to).await?;
                down.set_nodelay(true)?;
                up.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut down, &mut up, BUFFER, BUFFER).await
            });
        }
    })
}

const BUFFER: usize = 64 * 1024;
