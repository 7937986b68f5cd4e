//! A future that owns a connection, and the send that follows each of its polls.
//!
//! Invariant: when the inner future has ended, everything it wrote has reached the kernel (or the connection
//! is broken) before the result is handed on.

use crate::sock::Io;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pin_project! {
    /// Polls the inner future, then sends what that poll gathered.
    ///
    /// Exactly one `Drive` belongs to a connection: the write half wakes one task only.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Drive<F: Future> {
        #[pin]
        inner: F,
        io: Io,
        done: Option<F::Output>,
    }
}

impl<F: Future> Drive<F> {
    /// Drives the connection that `inner` reads and writes through `io`.
    pub fn new(inner: F, io: Io) -> Self {
        Self { inner, io, done: None }
    }

    /// The inner future, in its place.
    pub fn inner(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().inner
    }

    /// The inner future back, for a graceful end of the connection's protocol state.
    pub fn into_inner(self) -> F
    where
        F: Unpin,
    {
        self.inner
    }
}

impl<F: Future> Future for Drive<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.done.is_none()
            && let Poll::Ready(output) = this.inner.poll(cx)
        {
            *this.done = Some(output);
        }
        let flushed = {
            let mut sock = this.io.0.borrow_mut();
            // An error stays in the stream: the next write of the inner future meets it.
            sock.is_clean() || sock.poll_flush_now(cx).is_ready()
        };
        match this.done.take() {
            Some(output) if flushed => Poll::Ready(output),
            other => {
                *this.done = other;
                Poll::Pending
            }
        }
    }
}
