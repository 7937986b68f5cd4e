//! A collector that takes everything: what tracing costs a sidecar includes telling somebody.
//! Before this: the sidecars' exporters. After it: nothing.
//!
//! Invariant: it answers each message of OTLP over HTTP with an empty 200, and reads it whole.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// A running collector; dropping it ends its thread.
pub(crate) struct Collector {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Collector {
    /// Starts one on a free port of loopback.
    ///
    /// # Errors
    /// No socket is to be had.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind((super::super::LOOPBACK, 0))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // A sidecar that ends in the middle of a message is no concern of the bench.
                std::thread::spawn(move || drop(take(&stream)));
            }
        });
        Ok(Self { address, stopping })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread; one that cannot be woken ends with the rig.
        drop(TcpStream::connect(self.address));
    }
}

fn take(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0u64);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
            let mut answer = stream;
            answer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            length = 0;
        }
    }
}
