//! One byte stream, TCP or TLS over TCP, that gathers what is written to it.
//!
//! Every connection of the sidecar, downstream and upstream, is a [`Sock`]. What one poll of its owner writes
//! is kept until that poll ends and then leaves in one TLS record per 16 KiB and one system call: the owner
//! is wrapped in [`crate::drive::Drive`], which calls [`Sock::poll_flush_now`] after each poll.
//!
//! Invariant: bytes already decrypted or given back by [`Sock::unread`] are read before the network is asked.
//! Invariant: at most [`GATHER`] bytes (and one write more) are gathered; then writing waits for the peer.
//! Invariant: the end of a TLS stream without `close_notify` is an error, never an end.

mod io;
#[cfg(test)]
mod tests;

pub use io::Io;

use crate::buffers::{Area, Rest, Room, with_scratch};
use crate::tls::Tls;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Gathered bytes above which a write first sends what waits.
/// Source: four full TLS records; HTTP/2's default window, so one stream rarely gathers more.
pub const GATHER: usize = 64 * 1024;

/// Longest single write taken into the gather buffer; the caller offers the rest again.
const TAKE: usize = 64 * 1024;

/// What carries the bytes.
#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

/// A gathering byte stream over TCP or TLS.
#[derive(Debug)]
pub struct Sock {
    wire: Wire,
    /// Plaintext that was received and not read yet.
    left: Rest,
    /// Plaintext that was written and not sent yet.
    gathered: Rest,
    read: u64,
    written: u64,
    /// The write half was closed.
    finished: bool,
    /// A writer was told to wait and must be woken when there is room.
    waiting: bool,
    /// The first error of the write half; all later writes meet it.
    broken: Option<ErrorKind>,
    /// Reads fail too.
    poisoned: bool,
}

impl Sock {
    /// A stream in the clear.
    #[must_use]
    pub fn tcp(stream: TcpStream) -> Self {
        Self::over(Wire::Tcp(stream), Rest::new())
    }

    /// A TLS stream whose handshake is done; `left` was received together with the handshake's end.
    pub(crate) fn tls(tls: Box<Tls>, left: Rest) -> Self {
        Self::over(Wire::Tls(tls), left)
    }

    fn over(wire: Wire, left: Rest) -> Self {
        Self {
            wire,
            left,
            gathered: Rest::new(),
            read: 0,
            written: 0,
            finished: false,
            waiting: false,
            broken: None,
            poisoned: false,
        }
    }

    /// The TCP connection below.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        match &self.wire {
            Wire::Tcp(tcp) => tcp,
            Wire::Tls(tls) => tls.stream(),
        }
    }

    /// The TLS session, when there is one: peer certificates, ALPN, resumption.
    #[must_use]
    pub fn session(&self) -> Option<&Tls> {
        match &self.wire {
            Wire::Tcp(_) => None,
            Wire::Tls(tls) => Some(tls),
        }
    }

    /// The same, to change it: key update.
    pub fn session_mut(&mut self) -> Option<&mut Tls> {
        match &mut self.wire {
            Wire::Tcp(_) => None,
            Wire::Tls(tls) => Some(tls),
        }
    }

    /// The TCP connection itself, with the bytes that were received and not read; `None` over TLS.
    #[must_use]
    pub fn into_tcp(self) -> Option<(TcpStream, Rest)> {
        match self.wire {
            Wire::Tcp(tcp) => Some((tcp, self.left)),
            Wire::Tls(_) => None,
        }
    }

    /// Address of the peer.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.stream().peer_addr()
    }

    /// Address of this side.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.stream().local_addr()
    }

    /// Plaintext bytes read by the owner so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read
    }

    /// Plaintext bytes taken from the owner so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written
    }

    /// Whether something written has not reached the kernel.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.gathered.is_empty()
            || match &self.wire {
                Wire::Tcp(_) => false,
                Wire::Tls(tls) => tls.is_dirty(),
            }
    }

    /// Bytes written that wait in the gather buffer.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.gathered.len()
    }

    /// Whether all that was written has reached the kernel and no writer waits.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.is_dirty() && !self.waiting
    }

    /// Whether the write half was closed by [`Sock::poll_finish`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Plaintext that was received and not read.
    #[must_use]
    pub fn unread_bytes(&self) -> &[u8] {
        self.left.as_slice()
    }

    /// Gives bytes back: the next read starts with them.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.read = self.read.saturating_sub(bytes.len() as u64);
        self.left.push_front(bytes);
    }

    /// Puts bytes of our own among those gathered: only where no message is half written.
    pub fn inject(&mut self, bytes: &[u8]) {
        if self.broken.is_none() && !self.finished {
            self.gathered.push(bytes);
            self.written += bytes.len() as u64;
        }
    }

    /// Breaks the stream: every later read and write fails. For a peer that abuses its protocol.
    pub fn poison(&mut self) {
        self.broken.get_or_insert(ErrorKind::ConnectionAborted);
        self.gathered.clear();
        self.poisoned = true;
    }

    /// Poisons the stream and wakes whoever waits on it.
    pub(crate) fn give_up(&mut self) {
        self.poison();
        // When this fails the connection is already gone, which wakes as well.
        let _ = socket2::SockRef::from(self.stream()).shutdown(std::net::Shutdown::Both);
    }

    /// Ready when a read would find bytes, an end or an error; reads nothing.
    ///
    /// A readable socket may hold TLS records without plaintext (a session ticket): then the read that
    /// follows is pending.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.left.is_empty() || self.session().is_some_and(Tls::is_ended) {
            return Poll::Ready(());
        }
        // A look at one byte, because readiness alone may be stale.
        let mut byte = [0];
        self.stream().poll_peek(cx, &mut ReadBuf::new(&mut byte)).map(|_| ())
    }

    /// Reads into tokio's buffer; nothing put means the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.left.is_empty()
            && !self.poisoned
            && room.remaining() > 0
            && let Wire::Tcp(tcp) = &mut self.wire
        {
            let before = room.filled().len();
            ready!(tokio::io::AsyncRead::poll_read(Pin::new(tcp), cx, room))?;
            self.read += (room.filled().len() - before) as u64;
            return Poll::Ready(Ok(()));
        }
        self.poll_read_to(cx, room)
    }

    /// Reads to any place; over TCP by way of the thread's scratch area.
    pub(crate) fn poll_read_to(&mut self, cx: &mut Context<'_>, room: &mut impl Room) -> Poll<Result<()>> {
        let before = room.room();
        if self.poisoned {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        if before == 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.left.is_empty() {
            let n = self.left.len().min(before);
            room.put(self.left.as_slice().get(..n).unwrap_or_default());
            self.left.advance(n);
        } else {
            ready!(match &mut self.wire {
                Wire::Tcp(tcp) => poll_read_scratch(tcp, cx, room),
                Wire::Tls(tls) => tls.poll_read(cx, room, &mut self.left),
            })?;
        }
        self.read += (before - room.room()) as u64;
        Poll::Ready(Ok(()))
    }

    /// Reads from the network although bytes are unread, and puts the new ones behind those; a look ahead.
    pub(crate) fn poll_read_behind(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let mut held = std::mem::take(&mut self.left);
        let (read, before) = (self.read, room.filled().len());
        let result = self.poll_read(cx, room);
        self.read = read;
        held.push(room.filled().get(before..).unwrap_or_default());
        // What TLS decrypted beyond `room` comes last.
        held.push(self.left.as_slice());
        self.left = held;
        result
    }

    /// Takes bytes into the gather buffer; sends first when it is full.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        self.writable()?;
        if self.gathered.len() >= GATHER && self.poll_flush_now(cx)?.is_pending() {
            self.waiting = true;
            return Poll::Pending;
        }
        let mut taken = 0;
        for part in parts {
            let n = part.len().min(TAKE - taken);
            self.gathered.push(part.get(..n).unwrap_or_default());
            taken += n;
            if n < part.len() {
                break;
            }
        }
        self.written += taken as u64;
        Poll::Ready(Ok(taken))
    }

    /// Writes past the gather buffer and keeps what the kernel does not take: the relay's way.
    ///
    /// The caller first waits until nothing is unsent ([`Sock::is_dirty`]), which bounds what is kept.
    pub(crate) fn write_or_keep(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<()> {
        self.writable()?;
        let result = match &mut self.wire {
            Wire::Tcp(tcp) if self.gathered.is_empty() => match Pin::new(tcp).poll_write(cx, bytes) {
                Poll::Ready(n) => n,
                Poll::Pending => Ok(0),
            },
            Wire::Tls(tls) if self.gathered.is_empty() => tls.seal(cx, bytes).map(|()| bytes.len()),
            _ => Ok(0),
        };
        let sent = self.noting(result)?;
        self.gathered.push(bytes.get(sent..).unwrap_or_default());
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Sends everything gathered; ready when the kernel has it all.
    pub fn poll_flush_now(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        let result = ready!(self.poll_send(cx));
        self.noting(result)?;
        if std::mem::take(&mut self.waiting) {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends everything, then closes the write half: `close_notify` over TLS, then FIN. Reading goes on.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_flush_now(cx))?;
        let result = ready!(match &mut self.wire {
            Wire::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Wire::Tls(tls) => tls.poll_close(cx),
        });
        // A peer that is already gone needs no farewell.
        match self.noting(result) {
            Err(error) if error.kind() != ErrorKind::NotConnected => return Poll::Ready(Err(error)),
            _ => self.finished = true,
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and forgets what still comes, up to `most` bytes: ready at the end, an error, or the limit.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, most: u64) -> Poll<()> {
        let limit = self.read.saturating_add(most);
        with_scratch(Area::Plain, |area| {
            while self.read < limit {
                let mut buf = ReadBuf::new(area);
                match ready!(self.poll_read(cx, &mut buf)) {
                    Ok(()) if !buf.filled().is_empty() => {}
                    _ => break,
                }
            }
            Poll::Ready(())
        })
    }

    /// Ends the connection with a TCP reset: what policy refused must not look like an orderly end.
    pub fn reset(self) {
        self.abort();
    }

    /// From now on, closing this connection resets it.
    pub fn abort(&self) {
        // When this fails the connection is already gone.
        let _ = self.stream().set_zero_linger();
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.wire {
            Wire::Tcp(tcp) => {
                while !self.gathered.is_empty() {
                    let n = ready!(Pin::new(&mut *tcp).poll_write(cx, self.gathered.as_slice()))?;
                    if n == 0 {
                        return Poll::Ready(Err(ErrorKind::WriteZero.into()));
                    }
                    self.gathered.advance(n);
                }
                Poll::Ready(Ok(()))
            }
            Wire::Tls(tls) => {
                ready!(tls.poll_send(cx))?;
                if !self.gathered.is_empty() {
                    tls.seal(cx, self.gathered.as_slice())?;
                    self.gathered.clear();
                }
                tls.poll_send(cx)
            }
        }
    }

    fn writable(&self) -> Result<()> {
        match self.broken {
            Some(kind) => Err(kind.into()),
            None if self.finished => Err(ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }

    /// Keeps the first write error and drops what can no longer be sent.
    fn noting<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.broken.get_or_insert(error.kind());
            self.gathered.clear();
            if let Wire::Tls(tls) = &mut self.wire {
                tls.forget_unsent();
            }
        }
        result
    }
}

/// Reads no more than fits, through the thread's scratch area.
fn poll_read_scratch(tcp: &mut TcpStream, cx: &mut Context<'_>, room: &mut impl Room) -> Poll<Result<()>> {
    with_scratch(Area::Plain, |area| {
        let most = room.room().min(area.len());
        let Some(area) = area.get_mut(..most) else {
            return Poll::Ready(Err(Error::from(ErrorKind::InvalidInput)));
        };
        let mut buf = ReadBuf::new(area);
        ready!(tokio::io::AsyncRead::poll_read(Pin::new(tcp), cx, &mut buf))?;
        room.put(buf.filled());
        Poll::Ready(Ok(()))
    })
}
