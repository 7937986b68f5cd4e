//! Serving one downstream HTTP connection.
//!
//! Stands between *detect* and *authorize*: it turns bytes into requests for the spine's service and
//! answers into bytes. An HTTP/1 connection alternates between two lives: as a small task that waits
//! for bytes, and as hyper's parser with its buffers.
//!
//! Invariant: a connection is parked only at a message boundary, with nothing read ahead but kept bytes.
//! Invariant: what one poll wrote is sent before the task sleeps.

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::client::{HeadLimits, Http2Limits};
use super::frames::{Flood, FrameIo, Watch, calm};
use super::live::{Ask, Conn};
use crate::exec::LocalExec;
use crate::sock::Io;

/// Limits of downstream HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeLimits {
    /// HTTP/1 heads.
    pub head: HeadLimits,
    /// HTTP/2.
    pub http2: Http2Limits,
}

/// How serving ended.
#[derive(Debug)]
pub enum Ended {
    /// By either side, in order.
    Closed,
    /// HTTP ended because an exchange agreed to an upgrade; the stream goes on.
    Upgraded,
    /// The peer broke the protocol or the connection.
    Failed(hyper::Error),
    /// No request head came in time.
    SlowHead,
    /// No request came for too long.
    Idle,
    /// The peer took nothing of what was held for it, for too long.
    Stalled,
    /// The peer sent too much that is not work.
    Flooded(Flood),
}

enum Phase {
    Park,
    End(Ended),
}

/// What it means that a downstream has ended its half of a connection while its request is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfSending {
    /// It has nothing more to ask, and may still wait for the answer, as `nc` does.
    MayWait,
    /// It has gone away: sidecars end both halves at once, when they give a request up.
    Gone,
}

/// Serves HTTP/1 until the connection ends.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn serve_http1<S, B>(
    io: Io,
    service: Rc<S>,
    conn: Rc<Conn>,
    limits: HeadLimits,
    peer: EndOfSending,
) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    loop {
        if let Some(ended) = poll_fn(|cx| parked(&io, &conn, cx)).await {
            return finish(&io, ended).await;
        }
        conn.set_parked(false);
        let mut hyper = Box::pin(http1_builder(limits, peer).serve_connection(io.clone(), service.clone()));
        let phase = poll_fn(|cx| live(hyper.as_mut(), &io, &conn, cx)).await;
        let parts = Pin::into_inner(hyper);
        match phase {
            Phase::End(Ended::Upgraded) => {
                let parts = parts.into_parts();
                io.0.borrow_mut().unread(&parts.read_buf);
                return Ended::Upgraded;
            }
            Phase::End(ended) => return finish(&io, ended).await,
            Phase::Park => {
                let parts = parts.into_parts();
                io.0.borrow_mut().unread(&parts.read_buf);
                conn.set_parked(true);
            }
        }
    }
}

fn http1_builder(limits: HeadLimits, peer: EndOfSending) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .half_close(peer == EndOfSending::MayWait)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.fields)
        .max_header_size(limits.bytes)
        .max_buf_size(limits.bytes.max(8192));
    builder
}

/// Waits for bytes, or for a reason to end.
fn parked(io: &Io, conn: &Conn, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
    conn.register(cx);
    match conn.ask() {
        Ask::Drain => return Poll::Ready(Some(Ended::Closed)),
        Ask::Idle => return Poll::Ready(Some(Ended::Idle)),
        Ask::SlowHead => return Poll::Ready(Some(Ended::SlowHead)),
        Ask::Stay | Ask::Park | Ask::Stalled => {}
    }
    io.0.borrow_mut().poll_readable(cx).map(|()| None)
}

/// One poll of a connection that is not parked.
fn live<S, B>(
    mut hyper: Pin<&mut http1::Connection<Io, Rc<S>>>,
    io: &Io,
    conn: &Conn,
    cx: &mut Context<'_>,
) -> Poll<Phase>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    conn.register(cx);
    if conn.ask() == Ask::Drain {
        hyper.as_mut().graceful_shutdown();
    }
    let polled = hyper.as_mut().poll(cx);
    conn.note_read(io.0.borrow().read_bytes());
    io.poll_sent(cx);
    conn.note_sent(&io.0.borrow());
    match polled {
        Poll::Ready(_) if conn.is_upgrading() => return Poll::Ready(Phase::End(Ended::Upgraded)),
        Poll::Ready(Ok(())) => return Poll::Ready(Phase::End(Ended::Closed)),
        Poll::Ready(Err(error)) => return Poll::Ready(Phase::End(Ended::Failed(error))),
        Poll::Pending => {}
    }
    match conn.ask() {
        Ask::Park if conn.may_park() && io.0.borrow().is_clean() => Poll::Ready(Phase::Park),
        Ask::Park => {
            conn.refuse_park();
            Poll::Pending
        }
        Ask::SlowHead => Poll::Ready(Phase::End(Ended::SlowHead)),
        Ask::Idle => Poll::Ready(Phase::End(Ended::Idle)),
        Ask::Stalled => Poll::Ready(Phase::End(Ended::Stalled)),
        Ask::Stay | Ask::Drain => Poll::Pending,
    }
}

/// Sends what is left and closes the write half; bounded, because a peer may not read.
async fn finish(io: &Io, ended: Ended) -> Ended {
    if matches!(ended, Ended::Stalled) {
        io.0.borrow().abort();
        return ended;
    }
    if matches!(ended, Ended::SlowHead) {
        io.0.borrow_mut()
            .inject(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    }
    let closing = async {
        let finished = poll_fn(|cx| io.0.borrow_mut().poll_finish(cx)).await;
        if finished.is_ok() && matches!(ended, Ended::Failed(_) | Ended::SlowHead | Ended::Flooded(_)) {
            poll_fn(|cx| io.0.borrow_mut().poll_discard(cx, LINGER_BYTES)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, closing).await;
    ended
}

/// How long a closing connection may take to send its last bytes. Source: nginx's lingering_timeout, 5 s.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);
/// What a peer may still send after it was refused: bytes that nobody reads make the kernel reset the
/// connection, and the reset can overtake the refusal. Source: four times the largest head.
const LINGER_BYTES: u64 = 256 * 1024;

/// Serves HTTP/2 until the connection ends.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn serve_http2<S, B>(io: Io, service: Rc<S>, conn: Rc<Conn>, limits: Http2Limits) -> Ended
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    S::Future: 'static,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let watch = Watch::downstream(limits.frames);
    let watched = FrameIo::new(io.clone(), watch.clone(), Some(conn.clone()));
    let mut hyper = Box::pin(
        http2::Builder::new(LocalExec::server())
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_bytes)
            .max_send_buf_size(limits.send_buffer)
            .auto_date_header(false)
            .serve_connection(watched, service),
    );
    let mut draining = false;
    let ended = poll_fn(|cx| {
        conn.register(cx);
        if conn.ask() == Ask::Stalled {
            return Poll::Ready(Ended::Stalled);
        }
        if conn.ask() != Ask::Stay && !draining {
            draining = true;
            hyper.as_mut().graceful_shutdown();
        }
        let polled = hyper.as_mut().poll(cx);
        io.poll_sent(cx);
        conn.note_sent(&io.0.borrow());
        polled.map(|result| match (watch.flood(), result) {
            (Some(flood), _) => Ended::Flooded(flood),
            (None, Ok(())) => Ended::Closed,
            (None, Err(error)) => Ended::Failed(error),
        })
    })
    .await;
    drop(hyper);
    if matches!(ended, Ended::Flooded(_)) {
        calm(&io, &watch);
    }
    finish(&io, ended).await
}
