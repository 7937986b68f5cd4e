//! Streams of a downstream HTTP/2 connection that can be ended one at a time.
//!
//! Stands around hyper's task of one stream. hyper polls a body only when the peer has room for it, so a
//! body cannot end a stream whose peer gives none; the task around it can.
//!
//! Invariant: ending a stream harms no other stream of its connection.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// What knows whether its stream is to end.
pub trait Sever {
    /// Whether the stream ends now. Whoever makes it so wakes the stream's task.
    fn is_severed(&self) -> bool;
}

thread_local! {
    static OPENED: RefCell<Option<Rc<dyn Sever>>> = const { RefCell::new(None) };
}

/// Puts the stream whose task is being polled under `exchange`.
pub fn under(exchange: Rc<dyn Sever>) {
    OPENED.set(Some(exchange));
}

pin_project! {
    /// The task of one stream; when it is severed the stream is reset.
    pub(crate) struct Severable<F> {
        #[pin]
        inner: F,
        exchange: Option<Rc<dyn Sever>>,
    }
}

impl<F> Severable<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner, exchange: None }
    }
}

impl<F: Future> Future for Severable<F> {
    type Output = Option<F::Output>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        if this.exchange.as_ref().is_some_and(|exchange| exchange.is_severed()) {
            return Poll::Ready(None);
        }
        let polled = this.inner.poll(cx);
        if this.exchange.is_none() {
            *this.exchange = OPENED.take();
        }
        polled.map(Some)
    }
}
