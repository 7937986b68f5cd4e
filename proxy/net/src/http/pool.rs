//! Links to one endpoint, per thread: idle HTTP/1.1 links and shared HTTP/2 links.
//!
//! Stands in *connect*: a request takes a link, and the link comes back when both bodies ended.
//!
//! Invariant: connections opened never exceed the limit; requests that wait for one are bounded too.
//! Invariant: readiness of a returned link is looked at when it is taken, so no task waits for it.

use http_body::Body as HttpBody;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

use super::client::{Entered, Http1Link, Http2Link};
use super::live::TICK;

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Connections to the endpoint.
    pub connections: u32,
    /// Requests that may wait for one.
    pub pending: u32,
    /// How long a request waits.
    pub wait: Duration,
    /// Ticks after which an unused link is closed.
    pub idle_ticks: u32,
}

/// How long an upstream may allow no stream at all before its connection is given up. Source: it says so
/// with its first bytes, so a second word is due soon; with three attempts a caller waits 6 s.
const NO_STREAM: Duration = Duration::from_secs(2);

/// Why a pool gave no link.
#[derive(Debug)]
pub enum Busy<E> {
    /// Too many requests wait already.
    Overflow,
    /// None came free in time.
    TimedOut,
    /// Connecting failed.
    Dial(E),
}

/// The links of one endpoint.
#[derive(Debug)]
pub struct Pool<B> {
    limits: Cell<PoolLimits>,
    idle: RefCell<Vec<Http1Link<B>>>,
    shared: RefCell<Vec<Http2Link<B>>>,
    open: Rc<Cell<u32>>,
    waiting: Cell<u32>,
    freed: Notify,
    dialing: tokio::sync::Mutex<()>,
    tick: Cell<u32>,
}

/// An HTTP/1.1 link on loan.
#[derive(Debug)]
pub struct Lease<B> {
    link: Option<Http1Link<B>>,
    pool: Rc<Pool<B>>,
    /// Whether the link served a request before.
    pub reused: bool,
}

impl<B> Pool<B>
where
    B: HttpBody + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Rc<Self> {
        Rc::new(Self {
            limits: Cell::new(limits),
            idle: RefCell::new(Vec::new()),
            shared: RefCell::new(Vec::new()),
            open: Rc::new(Cell::new(0)),
            waiting: Cell::new(0),
            freed: Notify::new(),
            dialing: tokio::sync::Mutex::new(()),
            tick: Cell::new(0),
        })
    }

    /// Requests that wait for a connection.
    pub fn waiting(&self) -> u32 {
        self.waiting.get()
    }

    /// Takes new limits.
    pub fn set_limits(&self, limits: PoolLimits) {
        self.limits.set(limits);
    }

    /// Connections open or being opened.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// An idle HTTP/1.1 link, if there is one that is ready.
    pub fn take_idle(self: &Rc<Self>) -> Option<Lease<B>> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if idle[at].is_closed() {
                idle.swap_remove(at);
                self.close_one();
            } else if idle[at].is_ready() {
                let link = idle.swap_remove(at);
                return Some(Lease { link: Some(link), pool: self.clone(), reused: true });
            }
        }
        None
    }

    /// An HTTP/1.1 link: idle, or new from `dial`, or the first that comes free.
    ///
    /// # Errors
    /// [`Busy`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection attempt; nothing else is lost.
    pub async fn take<E>(
        self: &Rc<Self>,
        dial: impl AsyncFn() -> Result<Http1Link<B>, E>,
    ) -> Result<Lease<B>, Busy<E>> {
        loop {
            if let Some(lease) = self.take_idle() {
                return Ok(lease);
            }
            if let Some(opening) = self.open_one() {
                let link = dial().await.map_err(Busy::Dial)?;
                opening.keep();
                return Ok(Lease { link: Some(link), pool: self.clone(), reused: false });
            }
            self.wait().await?;
        }
    }

    /// A shared HTTP/2 link with room: one there is, or a new one from `dial`.
    ///
    /// # Errors
    /// [`Busy`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection attempt; nothing else is lost.
    pub async fn share<E>(
        self: &Rc<Self>,
        dial: impl AsyncFn() -> Result<Http2Link<B>, E>,
    ) -> Result<(Http2Link<B>, Entered, bool), Busy<E>> {
        if let Some((link, entered)) = self.share_open() {
            return Ok((link, entered, true));
        }
        let _one_dials = self.dialing.lock().await;
        if let Some((link, entered)) = self.share_open() {
            return Ok((link, entered, false));
        }
        let Some(opening) = self.open_one() else {
            return self.share_full();
        };
        let link = dial().await.map_err(Busy::Dial)?;
        opening.keep();
        let entered = link.enter();
        self.shared.borrow_mut().push(link.clone());
        Ok((link, entered, false))
    }

    /// A shared HTTP/2 link that is open and has room.
    pub fn share_open(&self) -> Option<(Http2Link<B>, Entered)> {
        let mut shared = self.shared.borrow_mut();
        if shared.iter().any(Http2Link::is_closed) {
            shared.retain(|link| {
                let closed = link.is_closed();
                if closed {
                    self.close_one();
                }
                !closed
            });
        }
        let link = shared.iter().find(|link| link.has_room())?;
        Some((link.clone(), link.enter()))
    }

    /// All connections are open and full: requests queue on the emptiest, up to the limit.
    fn share_full<E>(&self) -> Result<(Http2Link<B>, Entered, bool), Busy<E>> {
        let shared = self.shared.borrow();
        let queued: usize = shared.iter().map(Http2Link::active).sum();
        let limits = self.limits.get();
        match shared.iter().min_by_key(|link| link.active()) {
            Some(link) if queued < limits.pending as usize + limits.connections as usize * 100 => {
                Ok((link.clone(), link.enter(), true))
            }
            _ => Err(Busy::Overflow),
        }
    }

    async fn wait<E>(&self) -> Result<(), Busy<E>> {
        let limits = self.limits.get();
        if self.waiting.get() >= limits.pending {
            return Err(Busy::Overflow);
        }
        let _waiting = Count::enter(&self.waiting);
        match tokio::time::timeout(limits.wait, self.freed.notified()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Busy::TimedOut),
        }
    }

    fn open_one(&self) -> Option<Opening> {
        if self.open.get() >= self.limits.get().connections {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(Opening { open: self.open.clone(), kept: false })
    }

    /// Closes links that nobody used for long; called by the thread's tick.
    pub fn tick(&self) {
        let now = self.tick.get().wrapping_add(1);
        self.tick.set(now);
        let limit = self.limits.get().idle_ticks;
        self.idle.borrow_mut().retain(|link| {
            let stale = link.is_closed() || now.wrapping_sub(link.since) >= limit;
            if stale {
                self.close_one();
            }
            !stale
        });
        let limits = self.limits.get();
        let wait = limits.wait.min(NO_STREAM);
        let wait = u32::try_from(wait.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX).max(1);
        self.shared.borrow().iter().for_each(|link| link.tick(wait));
        drop(self.share_open());
    }
}

impl<B> Pool<B> {
    fn close_one(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        self.freed.notify_one();
    }

    /// Forgets every idle and shared link: the endpoint is gone, or its identity changed. Exchanges
    /// under way go on.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        let shared = std::mem::take(&mut *self.shared.borrow_mut());
        for _ in 0..idle.len() + shared.len() {
            self.close_one();
        }
    }
}

impl<B> Lease<B> {
    /// Address of the upstream, while the link is connected.
    pub fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.link.as_ref().and_then(Http1Link::peer_addr)
    }

    /// The link.
    pub fn link(&mut self) -> Option<&mut Http1Link<B>> {
        self.link.as_mut()
    }

    /// Takes the link out of the pool for good (it was upgraded, or broke).
    pub fn keep(mut self) -> Option<Http1Link<B>> {
        let link = self.link.take();
        self.pool.close_one();
        link
    }
}

impl<B> Drop for Lease<B> {
    /// The link goes back; whether it may serve again shows when it is taken.
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        link.since = self.pool.tick.get();
        self.pool.idle.borrow_mut().push(link);
        if self.pool.waiting.get() > 0 {
            self.pool.freed.notify_one();
        }
    }
}

/// A connection being opened; counts against the limit unless it fails.
struct Opening {
    open: Rc<Cell<u32>>,
    kept: bool,
}

impl Opening {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.kept {
            self.open.set(self.open.get().saturating_sub(1));
        }
    }
}

struct Count<'a>(&'a Cell<u32>);

impl<'a> Count<'a> {
    fn enter(cell: &'a Cell<u32>) -> Self {
        cell.set(cell.get() + 1);
        Self(cell)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
