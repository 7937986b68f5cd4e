//! Bodies that count what passes, and close their record when the last of it has passed.
//!
//! The relay wraps the answer in [`Recorded`] and the request's body in [`Metered`].
//!
//! Invariant: neither changes, delays or holds a frame.
//! Invariant: a record closes as complete only when the body said that it ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use weft_proxy_core::Reason;

use super::{Ending, Meter, Record};

pin_project_lite::pin_project! {
    /// The answer's body, with its record.
    pub struct Recorded<B: Body> {
        #[pin]
        body: B,
        record: Option<Record>,
        blame: fn(&B::Error) -> Reason,
    }
}

impl<B: Body> Recorded<B> {
    /// A body that closes `record` at its end; `blame` names the reason for an error of the body.
    pub fn new(body: B, mut record: Option<Record>, blame: fn(&B::Error) -> Reason) -> Self {
        if body.is_end_stream() {
            close(&mut record, Ending::Complete);
        }
        Self { body, record, blame }
    }
}

impl<B: Body> Body for Recorded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let polled = ready!(this.body.as_mut().poll_frame(cx));
        match &polled {
            None => close(this.record, Ending::Complete),
            Some(Err(error)) => close(this.record, Ending::Failed((this.blame)(error))),
            Some(Ok(frame)) => {
                if let Some(record) = this.record {
                    note(record, frame);
                }
                // A body of known length is not always polled once more after its last frame.
                if this.body.is_end_stream() {
                    close(this.record, Ending::Complete);
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn note<D: Buf>(record: &mut Record, frame: &Frame<D>) {
    if let Some(data) = frame.data_ref() {
        record.down(data.remaining() as u64);
    } else if let Some(trailers) = frame.trailers_ref() {
        record.trailers(trailers);
    }
}

fn close(record: &mut Option<Record>, ending: Ending) {
    if let Some(record) = record.take() {
        let now = record.desk.telemetry.clock.now();
        record.close(ending, now);
    }
}

pin_project_lite::pin_project! {
    /// The request's body, counted.
    pub struct Metered<B> {
        #[pin]
        body: B,
        meter: Meter,
    }
}

impl<B> Metered<B> {
    /// A body whose bytes `meter` counts.
    pub fn new(body: B, meter: Meter) -> Self {
        Self { body, meter }
    }
}

impl<B: Body> Body for Metered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let polled = ready!(this.body.poll_frame(cx));
        if let Some(data) = polled.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.meter.add(data.remaining() as u64);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
