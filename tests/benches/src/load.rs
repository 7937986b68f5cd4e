//! The load generator: one thread of its own, one small task per connection.
//! Before this: `measure` decides when a window opens and closes. After it: `report` prints the tally.
//!
//! Invariant: in an open loop latency counts from the time a request was due, so a stalled peer cannot hide
//! (no coordinated omission); requests that were due and never answered are counted as bad.
//! Invariant: every loop ends when its window does, at the latest [`PATIENCE`] later.

mod grpc;
mod http;
mod pace;
mod tcp;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::histogram::Histogram;
use crate::plan::{Load, Shape};

/// The part of the run that counts.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// End of the warm-up.
    pub(crate) from: Instant,
    /// End of the run.
    pub(crate) to: Instant,
}

/// What came of a load.
pub(crate) struct Tally {
    /// Right answers that came inside the window.
    pub(crate) done: u64,
    /// Bytes of a bulk stream that came inside the window.
    pub(crate) bytes: u64,
    /// Wrong or missing answers, warm-up included.
    pub(crate) bad: u64,
    /// What was wrong with the first bad one.
    pub(crate) why: Option<String>,
    /// From due time (open loop) or send (closed loop) to the last byte of the answer.
    pub(crate) latency: Histogram,
    window: Window,
}

/// The tally, shared by the tasks of the load thread.
type Shared = Rc<RefCell<Tally>>;

impl Tally {
    fn new(window: Window) -> Self {
        Self { done: 0, bytes: 0, bad: 0, why: None, latency: Histogram::new(), window }
    }

    fn over(&self) -> bool {
        Instant::now() >= self.window.to
    }

    fn right(&mut self, since: Instant) {
        let now = Instant::now();
        if now >= self.window.from && now < self.window.to {
            self.done += 1;
            self.latency.record(u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn moved(&mut self, bytes: usize) {
        let now = Instant::now();
        if now >= self.window.from && now < self.window.to {
            self.bytes += bytes as u64;
        }
    }

    fn wrong(&mut self, error: &anyhow::Error) {
        self.bad += 1;
        self.why.get_or_insert_with(|| format!("{error:#}"));
    }
}

/// Runs a load against `address` until its window ends; meant for a thread of its own.
///
/// # Errors
/// The load could not be put on at all; single bad answers are in the tally instead.
pub(crate) fn drive(shape: Shape, load: Load, address: SocketAddr, window: Window) -> Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::new(window)));
    local(async {
        let shared = Rc::clone(&tally);
        let work = async move {
            match (shape, load) {
                (Shape::Http, Load::Closed { connections, .. }) => {
                    http::closed(address, connections, shared).await
                }
                (Shape::Http, Load::Open { rps, connections }) => {
                    http::open(address, rps, connections, shared).await
                }
                (Shape::Grpc, Load::Closed { connections, streams }) => {
                    grpc::closed(address, (connections, streams), shared).await
                }
                (Shape::Grpc, Load::Open { rps, connections }) => {
                    grpc::open(address, rps, connections, shared).await
                }
                (Shape::Tcp, Load::Bulk) => tcp::bulk(address, shared).await,
                (Shape::Tcp, Load::Churn { at_once }) => tcp::churn(address, at_once, shared).await,
                (shape, load) => bail!("no {load:?} load of shape {shape:?}"),
            }
        };
        let end = tokio::time::Instant::from_std(window.to + PATIENCE);
        tokio::time::timeout_at(end, work).await.context("the load did not end with its window")?
    })?;
    let window_tally = Rc::try_unwrap(tally).ok().context("a load task outlived the load")?;
    Ok(window_tally.into_inner())
}

/// One right exchange on a connection of its own.
///
/// # Errors
/// The answer was wrong or did not come in time.
pub(crate) fn once(shape: Shape, address: SocketAddr) -> Result<()> {
    local(async {
        let work = async {
            match shape {
                Shape::Http => http::once(address).await,
                Shape::Grpc => grpc::once(address).await,
                Shape::Tcp => tcp::once(address).await,
            }
        };
        tokio::time::timeout(PATIENCE, work).await.context("no answer in time")?
    })
}

fn local<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// How long answers may still come after a window has ended, and how long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);
