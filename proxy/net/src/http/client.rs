//! Connections to one upstream: HTTP/1.1 links that carry one exchange at a time, HTTP/2 links that
//! carry many, and the upgrade of a link to a plain stream.
//!
//! Stands in *connect*. hyper's connection runs as a task of its own beside the requests that use it.
//!
//! Invariant: a link that broke or was left in the middle of a message is never handed out again.

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use crate::exec::{LocalExec, spawn};
use crate::sock::Io;

/// Why a request got no answer.
#[derive(Debug)]
pub struct Failed<B> {
    /// hyper's error.
    pub error: hyper::Error,
    /// The request, when the upstream certainly never saw it.
    pub unsent: Option<Request<B>>,
}

impl<B> From<TrySendError<Request<B>>> for Failed<B> {
    fn from(mut error: TrySendError<Request<B>>) -> Self {
        let unsent = error.take_message();
        Self { error: error.into_error(), unsent }
    }
}

/// What the connection's task and its users share.
#[derive(Debug, Default)]
struct Shared {
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// An HTTP/1.1 connection to an upstream.
#[derive(Debug)]
pub struct Http1Link<B> {
    sender: http1::SendRequest<B>,
    shared: Rc<Shared>,
    io: Io,
    /// Tick at which the link came back to its pool.
    pub(super) since: u32,
}

/// Limits of an upstream HTTP/1.1 parser.
/// Source: hyper's defaults (100 fields, 400 KiB buffer) are for browsers; 256 fields and 64 KiB of head
/// are what Envoy (100, 60 KiB) and HAProxy (101, 16 KiB) users raise them to.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Header fields in one head.
    pub fields: usize,
    /// Bytes in one head, and the parser's buffer.
    pub bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { fields: 100, bytes: 64 * 1024 }
    }
}

impl<B> Http1Link<B>
where
    B: HttpBody + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Starts HTTP/1.1 on a connected stream.
    ///
    /// # Errors
    /// When hyper refuses the stream (it does not today).
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    pub async fn start(io: Io, limits: HeadLimits) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(true).max_headers(limits.fields).max_buf_size(limits.bytes.max(8192));
        let (sender, conn) = builder.handshake(io.clone()).await?;
        let shared = Rc::new(Shared::default());
        spawn(Http1Task { conn: Some(conn), io: io.clone(), shared: shared.clone() });
        Ok(Self { sender, shared, io, since: 0 })
    }

    /// Whether the link can take a request now.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether the link will never take a request again.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.shared.ended.get()
    }

    /// Sends one request.
    ///
    /// # Errors
    /// With the request when the upstream never saw it: see [`Failed`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection: the exchange cannot be finished.
    pub fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        self.sender.try_send_request(request)
    }

    /// The stream under the link.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Turns the link, whose last answer agreed to an upgrade, into its plain stream.
    pub fn upgrade(self) -> Upgrade {
        Upgrade { shared: self.shared, io: self.io }
    }
}

/// A link on its way to become a plain stream.
#[derive(Debug)]
pub struct Upgrade {
    shared: Rc<Shared>,
    io: Io,
}

impl Upgrade {
    /// Waits until HTTP has let go of the stream.
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    pub async fn stream(self) -> Io {
        std::future::poll_fn(|cx| {
            if self.shared.ended.get() {
                return Poll::Ready(());
            }
            *self.shared.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.io
    }
}

/// The task of an HTTP/1.1 connection: polls hyper, sends what that gathered, and at the end gives the
/// bytes hyper had read too far back to the stream.
struct Http1Task<B>
where
    B: HttpBody + 'static,
{
    conn: Option<http1::Connection<Io, B>>,
    io: Io,
    shared: Rc<Shared>,
}

impl<B> Future for Http1Task<B>
where
    B: HttpBody + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(conn) = self.conn.as_mut() else { return Poll::Ready(()) };
        let ended = Pin::new(conn).poll(cx);
        self.io.poll_sent(cx);
        let _ = ready!(ended);
        // Not only at an agreed upgrade: hyper may end in the very poll that delivers the answer, before
        // anybody has seen it, and an upstream may speak in the packet that agrees.
        if let Some(conn) = self.conn.take() {
            let parts = conn.into_parts();
            self.io.0.borrow_mut().unread(&parts.read_buf);
        }
        self.shared.end();
        Poll::Ready(())
    }
}

impl<B: HttpBody + 'static> Drop for Http1Task<B> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// An HTTP/2 connection to an upstream; clones share it.
#[derive(Debug)]
pub struct Http2Link<B> {
    sender: http2::SendRequest<B>,
    active: Rc<Cell<usize>>,
    /// Streams that the upstream allows at once.
    allowed: Rc<Cell<usize>>,
    retired: Rc<Cell<bool>>,
}

impl<B> Clone for Http2Link<B> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            active: self.active.clone(),
            allowed: self.allowed.clone(),
            retired: self.retired.clone(),
        }
    }
}

/// Windows and limits of HTTP/2 between sidecars and to applications.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    /// Window of one stream, bytes. Source: hyper's server default, 1 MiB.
    pub stream_window: u32,
    /// Window of the connection, bytes. Source: h2 0.4.20 charges unread small DATA frames against half
    /// of this window and ends the connection beyond it, so it must be large; 16 MiB.
    pub connection_window: u32,
    /// Streams at once. Source: RFC 9113 §6.5.2 advises at least 100; Envoy under Istio allows 2^31-1,
    /// nginx 128.
    pub streams: u32,
    /// Bytes of one header list. Source: Envoy, 60 KiB; large cookies need more than hyper's 16 KiB.
    pub head_bytes: u32,
    /// Bytes of one stream's body held for a peer that does not read.
    pub send_buffer: usize,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            streams: 1000,
            head_bytes: 64 * 1024,
            send_buffer: 256 * 1024,
        }
    }
}

impl<B> Http2Link<B>
where
    B: HttpBody + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Starts HTTP/2 on a connected stream.
    ///
    /// # Errors
    /// When the preface cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    pub async fn start(io: Io, limits: Http2Limits) -> Result<Self, hyper::Error> {
        let (sender, conn) = http2::Builder::new(LocalExec::client(io.clone()))
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_header_list_size(limits.head_bytes)
            .max_send_buf_size(limits.send_buffer)
            .handshake(io)
            .await?;
        let allowed = Rc::new(Cell::new(ASSUMED_STREAMS));
        spawn(Http2Task { conn, allowed: allowed.clone() });
        Ok(Self { sender, active: Rc::default(), allowed, retired: Rc::default() })
    }

    /// Whether the link will never take a request again.
    pub fn is_closed(&self) -> bool {
        self.retired.get() || self.sender.is_closed()
    }

    /// No new requests go here: the upstream is leaving, or stalled.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    /// Requests under way.
    pub fn active(&self) -> usize {
        self.active.get()
    }

    /// Whether the upstream's stream limit leaves room for one more request.
    pub fn has_room(&self) -> bool {
        self.active.get() < self.allowed.get()
    }

    /// Counts a request for as long as the guard lives.
    pub fn enter(&self) -> Entered {
        self.active.set(self.active.get() + 1);
        Entered(self.active.clone())
    }

    /// Sends one request.
    ///
    /// # Errors
    /// With the request when the upstream never saw it: see [`Failed`].
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream.
    pub fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        self.sender.try_send_request(request)
    }
}

/// Streams assumed before the upstream's SETTINGS came. Source: RFC 9113 §6.5.2 advises at least 100.
const ASSUMED_STREAMS: usize = 100;

/// The dispatching half of an HTTP/2 connection; after each poll it notes how many streams the
/// upstream allows.
struct Http2Task<B>
where
    B: HttpBody + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    conn: http2::Connection<Io, B, LocalExec>,
    allowed: Rc<Cell<usize>>,
}

impl<B> Future for Http2Task<B>
where
    B: HttpBody + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = Pin::new(&mut self.conn).poll(cx);
        self.allowed.set(self.conn.current_max_send_streams());
        ended.map(drop)
    }
}

/// One request under way on an HTTP/2 link.
#[derive(Debug)]
pub struct Entered(Rc<Cell<usize>>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
