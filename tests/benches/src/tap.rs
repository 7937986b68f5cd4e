//! A recording relay between the two sidecars: what really crosses the wire there.
//! Before this: proxy A. After it: proxy B; `check` reads the record.
//!
//! Invariant: the tap stands in the path only while a peer is checked, never while it is measured.
//! Invariant: it records at most [`KEPT`] bytes per direction and [`CONNECTIONS`] connections, and changes none.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The first bytes of one connection.
#[derive(Default, Clone)]
pub(crate) struct Record {
    /// From A to B.
    pub(crate) up: Vec<u8>,
    /// From B to A.
    pub(crate) down: Vec<u8>,
}

type Records = Arc<Mutex<Vec<Record>>>;

/// A running tap; dropping it closes all its connections.
pub(crate) struct Tap {
    records: Records,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens on `address` and passes everything on to `target`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(crate) fn start(address: SocketAddr, target: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener =
            runtime.block_on(TcpListener::bind(address)).with_context(|| format!("tap on {address}"))?;
        let records = Records::default();
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&records);
        let thread = std::thread::Builder::new().name("tap".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, target, shared) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { records, stop: Some(stop), thread: Some(thread) })
    }

    /// What was recorded so far, connection by connection.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, records: Records) {
    while let Ok((from, _)) = listener.accept().await {
        let index = {
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            records.push(Record::default());
            records.len() - 1
        };
        let records = (index < CONNECTIONS).then(|| Arc::clone(&records));
        tokio::spawn(async move {
            let Ok(to) = TcpStream::connect(target).await else { return };
            let (from_read, from_write) = from.into_split();
            let (to_read, to_write) = to.into_split();
            let up = pass(from_read, to_write, records.clone(), |record| &mut record.up, index);
            let down = pass(to_read, from_write, records, |record| &mut record.down, index);
            tokio::join!(up, down);
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    records: Option<Records>,
    side: fn(&mut Record) -> &mut Vec<u8>,
    index: usize,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        if let Some(records) = &records
            && let Some(record) = records.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index)
        {
            let kept = side(record);
            kept.extend_from_slice(&buffer[..read.min(KEPT.saturating_sub(kept.len()))]);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Bytes kept per direction and connection.
const KEPT: usize = 64 * 1024;
/// Connections recorded.
const CONNECTIONS: usize = 64;
