//! The handle through which hyper and tokio read and write a [`Sock`].
//!
//! Invariant: flushing here only says "ready"; the bytes leave when the owner's poll ends
//! ([`crate::drive::Drive`]), except on shutdown, which sends everything first.

use super::Sock;
use std::cell::RefCell;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A shared handle to a [`Sock`]: hyper holds one, [`crate::drive::Drive`] another.
#[derive(Debug, Clone)]
pub struct Io(pub Rc<RefCell<Sock>>);

impl Io {
    /// Shares `sock`.
    #[must_use]
    pub fn new(sock: Sock) -> Self {
        Self(Rc::new(RefCell::new(sock)))
    }

    /// Takes the stream back, when this is the last handle.
    ///
    /// # Errors
    /// Gives the handle back when others are alive.
    pub fn into_sock(self) -> std::result::Result<Sock, Self> {
        Rc::try_unwrap(self.0).map(RefCell::into_inner).map_err(Self)
    }

    /// Sends what was gathered, as far as the kernel takes it. An error stays in the stream: its owner
    /// meets it at the next write.
    pub fn poll_sent(&self, cx: &mut Context<'_>) {
        let mut sock = self.0.borrow_mut();
        if !sock.is_clean() {
            let _ = sock.poll_flush_now(cx);
        }
    }

    /// Ready when a read would find bytes, an end or an error.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_readable(cx)
    }

    /// Waits until a read would find bytes, an end or an error.
    ///
    /// # Cancel safety
    /// Nothing is read; may be dropped at any time.
    pub async fn readable(&self) {
        std::future::poll_fn(|cx| self.poll_readable(cx)).await;
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.borrow_mut().poll_write(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_finish(cx)
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_read_to(cx, &mut buf)
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.0.borrow_mut().poll_write(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.borrow_mut().poll_finish(cx)
    }
}
