//! A connection whose bytes a test writes and reads itself, as client or as server.
//!
//! Invariant: what was read and not asked for yet is kept.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::look::in_time;

/// One TCP connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Cancel safety
    /// Dropped, nothing is open.
    pub async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.unwrap_or_else(|| panic!("{address} refuses connections"))
    }

    /// Connects, where the peer may refuse: a reset that is quick enough comes before the connection is
    /// said to be there.
    ///
    /// # Cancel safety
    /// Dropped, nothing is open.
    pub async fn try_open(address: SocketAddr) -> Option<Self> {
        in_time("connecting", TcpStream::connect(address)).await.ok().map(Self::on)
    }

    /// All that comes back for some bytes until the connection ends, by whatever kind of end.
    ///
    /// # Cancel safety
    /// Dropped, nothing is open.
    pub async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
        let Some(mut wire) = Self::try_open(address).await else { return String::new() };
        // Who refuses may do so before it has read.
        let _ = wire.try_send(bytes).await;
        wire.rest().await
    }

    /// On a connection that is there.
    pub fn on(stream: TcpStream) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// Writes.
    ///
    /// # Cancel safety
    /// A part may have been written.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Writes, and says whether the peer still took it.
    ///
    /// # Cancel safety
    /// A part may have been written.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Ends this side's half.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Ends this side's half, and says whether the connection was still there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn try_finish(&mut self) -> bool {
        self.stream.shutdown().await.is_ok()
    }

    /// Everything up to and with `mark`; `None`: the connection ended before.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub async fn try_until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = find(&self.held, mark.as_bytes()) {
                let rest = self.held.split_off(at + mark.len());
                let told = std::mem::replace(&mut self.held, rest);
                return Some(String::from_utf8_lossy(&told).into_owned());
            }
            if !self.fill(mark).await {
                return None;
            }
        }
    }

    /// Everything up to and with `mark`.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub async fn until(&mut self, mark: &str) -> String {
        match self.try_until(mark).await {
            Some(told) => told,
            None => panic!("the end came before {mark:?}, after {:?}", String::from_utf8_lossy(&self.held)),
        }
    }

    /// A head of HTTP/1, with the empty line.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// So many bytes.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.held.len() < count {
            assert!(self.fill("more bytes").await, "the end came after {} of {count} bytes", self.held.len());
        }
        let rest = self.held.split_off(count);
        std::mem::replace(&mut self.held, rest)
    }

    /// All that comes before the connection ends, in good order or by a reset.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub async fn rest(&mut self) -> String {
        while self.fill("the end").await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    /// What was read and not asked for.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// The socket itself, when nothing read is waiting.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.held.is_empty(), "{} bytes would be lost", self.held.len());
        self.stream
    }

    async fn fill(&mut self, what: &str) -> bool {
        let read = in_time(what, self.stream.read_buf(&mut self.held)).await;
        // A reset is an end as well; the test says which it wants by what it asks for.
        read.is_ok_and(|count| count > 0)
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
