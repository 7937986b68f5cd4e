//! One request and its answer while their bodies flow.
//!
//! Made when a request is accepted, shared by the two bodies and the spine, and gone when both bodies
//! are. It keeps what must outlive the head of the answer: the record, the endpoint's load, the link.
//!
//! Invariant: the record closes when the answer's body ends, or when the exchange is dropped.
//! Invariant: the link goes back to its pool only after the answer was read whole.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use weft_proxy_core::{Inbound, Reason, hygiene};
use weft_proxy_net::http::client::Entered;
use weft_proxy_net::http::interim::Continue;
use weft_proxy_net::http::sever::{self, Sever};
use weft_proxy_net::http::{Body, Cut, Finish, Lease, Tally};

use crate::allowed::{Allowed, Outliving};
use crate::kept::Kept;
use crate::plane::DataLimits;
use crate::record::{Ending, Record};
use crate::upstream::Picked;
use crate::worker::Worker;

/// A request on its way to the upstream.
pub(crate) type RequestBody = Body<RequestTally>;
/// A request on its way through the rooms. Boxed: the rooms' futures are nested, and each would hold it
/// twice (measured: 2 KB less in each request's future, and fewer moves, for one allocation).
pub(crate) type Outgoing = Box<Request<RequestBody>>;
/// An answer on its way to the downstream.
pub(crate) type ResponseBody = Body<ResponseTally>;

/// One request and its answer.
pub(crate) struct Exchange {
    worker: Rc<Worker>,
    record: RefCell<Option<Record>>,
    up: Cell<u64>,
    down: Cell<u64>,
    /// Holds the request body until the upstream wants it.
    go_on: OnceCell<Rc<Continue>>,
    held: RefCell<Held>,
    kept: RefCell<Kept>,
    /// What an inbound request was allowed as.
    allowed: OnceCell<Allowed>,
    deadline: RefCell<Option<Pin<Box<tokio::time::Sleep>>>>,
    flow: Flow,
}

/// Whether the downstream takes the answer's body.
#[derive(Default)]
struct Flow {
    answered: Cell<bool>,
    /// The downstream has room and asked for more than it was given.
    asked: Cell<bool>,
    stall_ticks: Cell<u32>,
    severed: Cell<bool>,
    /// Where the worker keeps this exchange for the tick.
    place: Cell<Option<usize>>,
    task: RefCell<Option<Waker>>,
}

/// What an exchange keeps until its answer has been read.
#[derive(Default)]
struct Held {
    lease: Option<Lease<RequestBody>>,
    entered: Option<Entered>,
    picked: Option<Picked>,
}

impl Exchange {
    pub(crate) fn open(worker: &Rc<Worker>, record: Record) -> Rc<Self> {
        Rc::new(Self {
            worker: worker.clone(),
            record: RefCell::new(Some(record)),
            up: Cell::new(0),
            down: Cell::new(0),
            go_on: OnceCell::new(),
            held: RefCell::default(),
            kept: RefCell::default(),
            allowed: OnceCell::new(),
            deadline: RefCell::default(),
            flow: Flow::default(),
        })
    }

    /// Holds the request body back until the upstream wants it.
    pub(crate) fn hold_body(&self) -> Rc<Continue> {
        let go_on = self.go_on.get_or_init(Rc::default);
        go_on.hold();
        go_on.clone()
    }

    /// Lets the tick end this exchange's stream alone, when the downstream is HTTP/2.
    ///
    /// # Cancel safety
    /// Ready at once.
    pub(crate) async fn watch_flow(self: &Rc<Self>, version: Version) {
        if version == Version::HTTP_2 {
            self.join_flows();
            sever::under(self.clone());
            poll_fn(|cx| {
                *self.flow.task.borrow_mut() = Some(cx.waker().clone());
                Poll::Ready(())
            })
            .await;
        }
    }

    fn join_flows(self: &Rc<Self>) {
        let mut flows = self.worker.flows.borrow_mut();
        self.flow.place.set(Some(flows.len()));
        flows.push(Rc::downgrade(self));
    }

    /// Takes the exchange off the tick's list; at once, so that its memory serves the next request.
    fn leave_flows(&self) {
        let Some(place) = self.flow.place.take() else { return };
        let mut flows = self.worker.flows.borrow_mut();
        if flows.get(place).is_some_and(|known| std::ptr::eq(known.as_ptr(), self)) {
            flows.swap_remove(place);
            if let Some(moved) = flows.get(place).and_then(Weak::upgrade) {
                moved.flow.place.set(Some(place));
            }
        }
    }

    /// The request was allowed: it is judged again when policies change.
    pub(crate) fn allow(self: &Rc<Self>, allowed: Allowed) {
        if self.allowed.set(allowed).is_ok() && self.flow.place.get().is_none() {
            self.join_flows();
        }
    }

    /// What the request was allowed as, for a stream that outlives the exchange.
    pub(crate) fn outliving(&self) -> Option<Outliving> {
        self.allowed.get()?.outliving()
    }

    /// A newer configuration is in force: what it denies ends, on HTTP/2 alone, on HTTP/1 with its
    /// connection.
    pub(crate) fn judge_again(&self, inbound: &Inbound) {
        let Some(allowed) = self.allowed.get() else { return };
        let Some(by) = allowed.denied(inbound) else { return };
        self.note(|record| {
            record.reason(by.reason());
            by.policy().into_iter().for_each(|policy| record.policy(policy));
        });
        let task = self.flow.task.borrow_mut().take();
        match task {
            Some(task) => {
                self.flow.severed.set(true);
                task.wake();
            }
            None => allowed.seat().conn.forbid(),
        }
    }

    /// One tick: a stream whose downstream takes nothing of its answer for `limit` ticks is reset.
    pub(crate) fn look_for_stall(&self, limit: u32) {
        let flow = &self.flow;
        // Streams of HTTP/2 have a task of their own; of a connection of HTTP/1 the connection takes care.
        if flow.asked.get() || !flow.answered.get() || flow.task.borrow().is_none() {
            return flow.stall_ticks.set(0);
        }
        flow.stall_ticks.set(flow.stall_ticks.get().saturating_add(1));
        if flow.stall_ticks.get() >= limit && !flow.severed.replace(true) {
            self.limit_hit("stall_timeout");
            if let Some(task) = flow.task.borrow_mut().take() {
                task.wake();
            }
        }
    }

    /// Keeps the request's body, as far as it is short, for another attempt.
    pub(crate) fn keep_body(&self) {
        self.kept.borrow_mut().want();
    }

    /// The request's body once more, where all of it was kept.
    pub(crate) fn kept_body(&self) -> Option<RequestBody> {
        self.kept.borrow().again()
    }

    /// The request's body is not needed again.
    pub(crate) fn forget_body(&self) {
        self.kept.borrow_mut().lose();
    }

    /// Writes into the record, while it is open.
    pub(crate) fn note(&self, write: impl FnOnce(&mut Record)) {
        if let Some(record) = self.record.borrow_mut().as_mut() {
            write(record);
        }
    }

    /// Limits in force.
    pub(crate) fn limits(&self) -> &DataLimits {
        &self.worker.plane.limits
    }

    /// Counts a limit that was hit.
    pub(crate) fn limit_hit(&self, name: &'static str) {
        self.worker.limit_hit(name);
    }

    /// Keeps the HTTP/1.1 link until the answer has been read.
    pub(crate) fn hold_lease(&self, lease: Lease<RequestBody>) {
        self.held.borrow_mut().lease = Some(lease);
    }

    /// Counts on the HTTP/2 link until the answer has been read.
    pub(crate) fn hold_stream(&self, entered: Entered) {
        self.held.borrow_mut().entered = Some(entered);
    }

    /// Counts as load of the endpoint until the answer has been read.
    pub(crate) fn hold_endpoint(&self, picked: Picked) {
        self.held.borrow_mut().picked = Some(picked);
    }

    /// The link, for an upgrade.
    pub(crate) fn take_lease(&self) -> Option<Lease<RequestBody>> {
        self.held.borrow_mut().lease.take()
    }

    /// Cuts the bodies off when `deadline` passes.
    pub(crate) fn cut_at(&self, deadline: tokio::time::Instant) {
        *self.deadline.borrow_mut() = Some(Box::pin(tokio::time::sleep_until(deadline)));
    }

    /// Closes the record for an exchange that was answered or broke before its bodies flowed.
    pub(crate) fn close(&self, ended: Option<Reason>) {
        if let Some(mut record) = self.record.borrow_mut().take() {
            record.carried(self.up.get(), self.down.get());
            record.close(ended.map_or(Ending::Complete, Ending::Failed), self.worker.now());
        }
    }

    /// The head of the answer is on its way downstream.
    pub(crate) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        self.flow.answered.set(true);
        let now = self.worker.now();
        self.note(|record| record.answered(status, headers, now));
    }

    /// The record, for an exchange that turns into a relayed stream.
    pub(crate) fn take_record(&self) -> Option<Record> {
        self.record.borrow_mut().take()
    }

    fn release(&self) {
        drop(std::mem::take(&mut *self.held.borrow_mut()));
    }

    fn poll_deadline(&self, cx: &mut Context<'_>) -> Result<(), Cut> {
        let mut deadline = self.deadline.borrow_mut();
        match deadline.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(Cut),
            _ => Ok(()),
        }
    }
}

impl Sever for Exchange {
    fn is_severed(&self) -> bool {
        self.flow.severed.get()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.leave_flows();
        self.close(Some(Reason::Cancelled));
        self.release();
    }
}

/// Keeps count of a request body.
pub(crate) struct RequestTally(pub(crate) Rc<Exchange>);

impl Tally for RequestTally {
    fn frame(&self, bytes: usize) {
        self.0.up.set(self.0.up.get() + bytes as u64);
    }

    fn keep(&self, data: &Bytes) {
        self.0.kept.borrow_mut().frame(data);
    }

    fn finish(&self, how: Finish) {
        if how == Finish::Whole {
            self.0.kept.borrow_mut().end();
        }
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        if let Err(cut) = self.0.poll_deadline(cx) {
            return Poll::Ready(Err(cut));
        }
        match self.0.go_on.get() {
            None => Poll::Ready(Ok(())),
            Some(go_on) => go_on.poll_open(cx).map(Ok),
        }
    }

    fn trailers(&self, trailers: &mut HeaderMap) {
        // They would have to be sent again as well.
        self.0.kept.borrow_mut().lose();
        hygiene::scrub_trailers(trailers);
    }
}

/// Keeps count of an answer's body, and ends the exchange with it.
pub(crate) struct ResponseTally(pub(crate) Rc<Exchange>);

impl Tally for ResponseTally {
    const TO_DOWNSTREAM: bool = true;

    fn frame(&self, bytes: usize) {
        self.0.flow.asked.set(false);
        self.0.flow.stall_ticks.set(0);
        self.0.down.set(self.0.down.get() + bytes as u64);
    }

    fn finish(&self, how: Finish) {
        let cut = self.0.deadline.borrow().as_ref().is_some_and(|sleep| sleep.is_elapsed());
        self.0.close(match how {
            Finish::Whole => None,
            Finish::Broken if cut => Some(Reason::RequestTimeout),
            Finish::Broken => Some(Reason::UpstreamReset),
            Finish::Dropped => Some(Reason::Cancelled),
        });
        self.0.release();
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.0.flow.asked.set(true);
        Poll::Ready(self.0.poll_deadline(cx))
    }

    fn trailers(&self, trailers: &mut HeaderMap) {
        self.0.note(|record| record.trailers(trailers));
        hygiene::scrub_trailers(trailers);
    }
}
