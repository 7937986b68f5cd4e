//! Bodies as they cross the sidecar: streamed, never held, and known to end.
//!
//! Invariant: a body tells its tally exactly once how it finished, also when it is dropped.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::live::Conn;

/// How a body finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Read to its end.
    Whole,
    /// Its source broke.
    Broken,
    /// Nobody wants it any more.
    Dropped,
}

/// Who keeps count of a body.
pub trait Tally {
    /// A frame of `bytes` passed.
    fn frame(&self, bytes: usize);
    /// The same frame, for who may need it again.
    fn keep(&self, data: &Bytes) {
        let _ = data;
    }
    /// The body finished; called exactly once.
    fn finish(&self, how: Finish);
    /// Whether the body may flow yet (`Expect: 100-continue` holds it back) or not any more (a deadline).
    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }
    /// Whether this body goes to the connection it is counted on, and waits while that takes nothing.
    const TO_DOWNSTREAM: bool = false;
    /// Called with trailers before they pass on.
    fn trailers(&self, trailers: &mut http::HeaderMap) {
        let _ = trailers;
    }
}

/// The exchange was cut off by its deadline while a body flowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the exchange took longer than its deadline")]
pub struct Cut;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Its source broke.
    #[error(transparent)]
    Source(#[from] hyper::Error),
    /// Its deadline passed.
    #[error(transparent)]
    Cut(#[from] Cut),
}

/// A body: none, a few bytes of our own, or a stream that passes through.
#[derive(Debug)]
pub enum Body<T: Tally> {
    /// No bytes.
    Empty,
    /// Bytes of our own.
    Full(Bytes),
    /// Bytes that pass through.
    Stream(Stream<T>),
}

/// A body that passes through.
#[derive(Debug)]
pub struct Stream<T: Tally> {
    inner: Incoming,
    tally: Option<T>,
    conn: Option<Rc<Conn>>,
}

impl<T: Tally> Body<T> {
    /// A body that passes through; `conn`: the downstream connection of which it is one half.
    pub fn stream(inner: Incoming, tally: T, conn: Option<Rc<Conn>>) -> Self {
        Self::Stream(Stream { inner, tally: Some(tally), conn })
    }
}

impl<T: Tally> Stream<T> {
    fn settle(&mut self, how: Finish) {
        if let Some(tally) = self.tally.take() {
            tally.finish(how);
        }
        if let Some(conn) = self.conn.take() {
            conn.half(how == Finish::Whole);
        }
    }
}

impl<T: Tally> Drop for Stream<T> {
    fn drop(&mut self) {
        let how = if self.inner.is_end_stream() { Finish::Whole } else { Finish::Dropped };
        self.settle(how);
    }
}

impl<T: Tally + Unpin> HttpBody for Body<T> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.inner.size_hint(),
        }
    }
}

impl<T: Tally> Stream<T> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(tally) = &self.tally
            && let Err(cut) = ready!(tally.poll_open(cx))
        {
            self.settle(Finish::Broken);
            return Poll::Ready(Some(Err(cut.into())));
        }
        if T::TO_DOWNSTREAM
            && let Some(conn) = &self.conn
        {
            ready!(conn.poll_taking(cx));
        }
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &mut frame {
            None => self.settle(Finish::Whole),
            Some(Err(_)) => self.settle(Finish::Broken),
            Some(Ok(frame)) => {
                let Some(tally) = &self.tally else { return Poll::Ready(None) };
                if let Some(data) = frame.data_ref() {
                    tally.frame(data.len());
                    tally.keep(data);
                    if T::TO_DOWNSTREAM
                        && let Some(conn) = &self.conn
                    {
                        conn.pass(data.len());
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    tally.trailers(trailers);
                }
                if self.inner.is_end_stream() {
                    self.settle(Finish::Whole);
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::from)))
    }
}
