//! A TLS connection that holds no buffer while nothing moves.
//!
//! Ciphertext is received into a scratch area of the thread and decrypted there; plaintext is encrypted into
//! another and leaves with one system call. Kept are only the front of an incomplete record and the
//! ciphertext the kernel did not take.
//!
//! Invariant: after `close_notify` of the peer no more plaintext is read; an end without it is
//! [`ErrorKind::UnexpectedEof`].
//! Invariant: a broken rule of the protocol is answered with its alert before the error is returned.

use super::engine::{self, Opened, Plain, Session};
use crate::buffers::{Area, Rest, Room, with_scratch};
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Least ciphertext asked for in one read; more when the reader has room for more.
/// Source: two full records, so that a small read does not cut one in half.
const LEAST_READ: usize = 32 * 1024;

/// Plaintext encrypted before the next write to the kernel.
/// Source: eight full records; with their overhead they fit a scratch area twice.
const SEAL_AT_ONCE: usize = 128 * 1024;

/// A TLS connection over TCP, handshake included.
#[derive(Debug)]
pub struct Tls {
    tcp: TcpStream,
    session: Session,
    /// The front of a record whose end has not arrived; during the handshake, of a message.
    partial: Rest,
    /// Ciphertext the kernel did not take.
    unsent: Rest,
    /// The peer said `close_notify`.
    ended: bool,
    /// We did.
    closing: bool,
    /// TLS itself broke: rustls must not be asked again.
    failed: bool,
}

impl Tls {
    /// Begins as either side; [`Tls::poll_handshake`] does the work.
    pub(crate) fn new(tcp: TcpStream, session: Session) -> Self {
        let (partial, unsent) = (Rest::new(), Rest::new());
        Self { tcp, session, partial, unsent, ended: false, closing: false, failed: false }
    }

    /// The TCP connection below.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.tcp
    }

    /// What the handshake agreed: ALPN, certificates, resumption.
    #[must_use]
    pub fn state(&self) -> &rustls::CommonState {
        self.session.state()
    }

    /// Whether the peer said `close_notify`.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether ciphertext waits for the kernel.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Drops what can no longer be sent.
    pub(crate) fn forget_unsent(&mut self) {
        self.unsent.clear();
    }

    /// Puts `bytes`, already read from the socket, before what it still holds: a handshake that follows a peek.
    pub(crate) fn preload(&mut self, bytes: &[u8]) {
        self.partial.push_front(bytes);
    }

    /// Carries the handshake on; plaintext that came with its end goes to `left`.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>, left: &mut Rest) -> Poll<Result<()>> {
        loop {
            // Before the network is asked: the client speaks first, and a server may have been preloaded.
            self.advance_handshake(cx, left)?;
            ready!(self.poll_send(cx))?;
            if !self.session.state().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let got = ready!(self.poll_fill(cx))?;
            if got == 0 {
                return Poll::Ready(Err(Error::new(ErrorKind::UnexpectedEof, "closed during the handshake")));
            }
        }
    }

    /// Gives rustls what arrived so far.
    fn advance_handshake(&mut self, cx: &mut Context<'_>, left: &mut Rest) -> Result<()> {
        let mut none = ReadBuf::new(&mut []);
        let plain = &mut Plain { room: &mut none, left, got: false };
        match self.session.open(self.partial.as_mut_slice(), plain, &mut self.unsent) {
            Ok(opened) => {
                self.partial.advance(opened.used);
                self.note_end(opened.ended);
                Ok(())
            }
            Err(error) => Err(self.fail(cx, error)),
        }
    }

    /// After the peer's farewell nothing it sends is looked at.
    fn note_end(&mut self, ended: bool) {
        if ended {
            self.ended = true;
            self.partial.clear();
        }
    }

    /// Reads more ciphertext behind what is held: handshake only, where messages span records.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        with_scratch(Area::Open, |area| {
            let most = LEAST_READ.min(area.len());
            let mut buf = ReadBuf::new(area.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf))?;
            self.partial.push(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
    }

    /// Reads plaintext; what has no room goes to `left`, which is empty now.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut impl Room,
        left: &mut Rest,
    ) -> Poll<Result<()>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            self.sound()?;
            let opened = ready!(self.poll_open(cx, room, left))?;
            if !self.unsent.is_empty() {
                // The answer to a key update; a write error shows at the next write.
                let _ = self.poll_send(cx);
            }
            if opened.got {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// One read from the socket, decrypted.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut impl Room,
        left: &mut Rest,
    ) -> Poll<Result<Opened>> {
        with_scratch(Area::Open, |area| {
            let have = self.partial.len();
            let most = have.saturating_add(room.room().max(LEAST_READ)).min(area.len());
            let Some(fresh) = area.get_mut(have..most).filter(|fresh| !fresh.is_empty()) else {
                return Poll::Ready(Err(too_long()));
            };
            let mut buf = ReadBuf::new(fresh);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf))?;
            let n = buf.filled().len();
            if n == 0 {
                return Poll::Ready(Err(Error::new(ErrorKind::UnexpectedEof, "ended without close_notify")));
            }
            let bytes = area.get_mut(..have + n).unwrap_or_default();
            bytes.get_mut(..have).unwrap_or_default().copy_from_slice(self.partial.as_slice());
            self.partial.clear();
            let plain = &mut Plain { room, left, got: false };
            match self.session.open(bytes, plain, &mut self.unsent) {
                Ok(opened) => {
                    self.partial.push(bytes.get(opened.used..).unwrap_or_default());
                    self.note_end(opened.ended);
                    Poll::Ready(Ok(opened))
                }
                Err(error) => Poll::Ready(Err(self.fail(cx, error))),
            }
        })
    }

    /// Encrypts all of `plain` and writes what the kernel takes; the rest waits for [`Tls::poll_send`].
    pub(crate) fn seal(&mut self, cx: &mut Context<'_>, plain: &[u8]) -> Result<()> {
        self.sound()?;
        with_scratch(Area::Seal, |area| {
            for part in plain.chunks(SEAL_AT_ONCE) {
                let n = self.session.seal(part, &mut self.partial, area).map_err(engine::invalid)?;
                self.send_or_keep(cx, area.get(..n).unwrap_or_default())?;
            }
            Ok(())
        })
    }

    fn send_or_keep(&mut self, cx: &mut Context<'_>, mut sealed: &[u8]) -> Result<()> {
        while self.unsent.is_empty() && !sealed.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, sealed) {
                Poll::Ready(n) => sealed = sealed.get(n?..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        self.unsent.push(sealed);
        Ok(())
    }

    /// Sends the ciphertext that waits.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.unsent.is_empty() {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, self.unsent.as_slice()))?;
            if n == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Says `close_notify`, sends all, closes the TCP write half. Reading goes on.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.closing && !self.failed {
            self.closing = true;
            let Self { session, partial, unsent, .. } = self;
            with_scratch(Area::Seal, |area| {
                let n = session.close(partial, area).map_err(engine::invalid)?;
                unsent.push(area.get(..n).unwrap_or_default());
                Ok::<_, Error>(())
            })?;
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Asks for new traffic keys on both directions; sent with the next write.
    ///
    /// # Errors
    /// When the handshake is not done or the connection is closed.
    pub fn refresh_keys(&mut self) -> Result<()> {
        self.sound()?;
        self.session.refresh_keys(&mut self.partial, &mut self.unsent).map_err(engine::invalid)
    }

    /// Sends the alert that belongs to `error`, as far as the kernel takes it at once.
    fn fail(&mut self, cx: &mut Context<'_>, error: rustls::Error) -> Error {
        self.failed = true;
        self.partial.clear();
        let _ = self.poll_send(cx);
        engine::invalid(error)
    }

    fn sound(&self) -> Result<()> {
        if self.failed { Err(Error::new(ErrorKind::InvalidData, "TLS broke before")) } else { Ok(()) }
    }
}

/// rustls refuses such a message long before; kept so that no peer can ever make a read of nothing.
fn too_long() -> Error {
    Error::new(ErrorKind::InvalidData, "a TLS message longer than any may be")
}
