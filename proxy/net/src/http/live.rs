//! The live downstream connections of one thread, and what the tick asks of them.
//!
//! A connection registers once and lives as long as its task. The tick (one timer a thread) looks at
//! every connection: it asks idle ones to park, closes those that are idle too long or slow to send a
//! head, and asks all of them to drain when the sidecar stops.
//!
//! Invariant: a connection with an exchange under way is never parked or closed for idleness.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sock::{GATHER, Sock};

/// What the tick, or the drain, wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Stay,
    /// Give up parser and buffers and wait for bytes as a small task.
    Park,
    /// Finish what is in flight, then close.
    Drain,
    /// Close: no head came in time.
    SlowHead,
    /// Close: nothing happened for too long.
    Idle,
    /// Close: the peer takes nothing of what is held for it.
    Stalled,
}

/// Limits that the tick enforces.
#[derive(Debug, Clone, Copy)]
pub struct LiveLimits {
    /// From the first byte of a request head to its last. Source: Envoy's request_headers_timeout as
    /// Istio users set it and nginx's client_header_timeout are 60 s; hyper's own default is 30 s.
    pub head: Duration,
    /// Without any request. Source: Envoy's connection idle_timeout, 1 h.
    pub idle: Duration,
    /// While bytes wait for a peer that takes none. Source: Envoy's stream_idle_timeout, 5 min.
    pub stall: Duration,
    /// Bytes held for peers that do not read, all connections of the thread together. Source: Weft's own,
    /// half of what charts commonly grant a sidecar.
    pub held: usize,
}

impl Default for LiveLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(3600),
            stall: Duration::from_secs(300),
            held: 128 << 20,
        }
    }
}

/// How often the tick runs. Source: measured; 250 ms parks soon and costs nothing.
pub const TICK: Duration = Duration::from_millis(250);

/// Bytes of bodies that a connection is handed before it had a chance to send any. Source: four gather
/// buffers; also the most that one connection moves before others have their turn.
const MOST_PASSED: usize = 4 * GATHER;

/// One downstream connection, shared by its task, its bodies and the tick.
#[derive(Debug)]
pub struct Conn {
    waker: RefCell<Option<Waker>>,
    /// Halves of exchanges (request body, response body) that have not ended.
    busy: Cell<u32>,
    /// A body was left unread: the stream is not at a message boundary.
    broken: Cell<bool>,
    served: Cell<u64>,
    seen: Cell<u64>,
    parked: Cell<bool>,
    ask: Cell<Ask>,
    /// Bytes read when the connection last was at a message boundary, and now.
    mark: Cell<u64>,
    read: Cell<u64>,
    idle_ticks: Cell<u32>,
    head_ticks: Cell<u32>,
    parks: bool,
    /// An exchange agreed to an upgrade.
    upgrading: Cell<bool>,
    /// Ticks since the connection began.
    ticks: Cell<u32>,
    /// What was written and what of it waits, after the last poll; and whether anything waits.
    sent: Cell<(u64, usize)>,
    sent_seen: Cell<(u64, usize)>,
    unsent: Cell<bool>,
    stall_ticks: Cell<u32>,
    /// Bytes of bodies handed on since the connection last had room for all it was given.
    passed: Cell<usize>,
    /// Ended because all connections together held too much.
    crowded: Cell<bool>,
    /// Ended because what it carries is no longer allowed.
    forbidden: Cell<bool>,
    /// Bodies that wait until the peer has taken what is held for it.
    held_up: RefCell<Vec<Waker>>,
}

impl Conn {
    /// A new connection; `parks`: it may be asked to park (HTTP/1).
    pub fn new(parks: bool) -> Rc<Self> {
        Rc::new(Self {
            waker: RefCell::new(None),
            busy: Cell::new(0),
            broken: Cell::new(false),
            served: Cell::new(0),
            seen: Cell::new(0),
            parked: Cell::new(false),
            ask: Cell::new(Ask::Stay),
            mark: Cell::new(0),
            read: Cell::new(0),
            idle_ticks: Cell::new(0),
            head_ticks: Cell::new(0),
            parks,
            upgrading: Cell::new(false),
            ticks: Cell::new(0),
            sent: Cell::default(),
            sent_seen: Cell::default(),
            unsent: Cell::new(false),
            stall_ticks: Cell::new(0),
            passed: Cell::new(0),
            crowded: Cell::new(false),
            forbidden: Cell::new(false),
            held_up: RefCell::default(),
        })
    }

    /// An exchange begins: its two halves are under way.
    pub fn begin(&self) {
        self.busy.set(self.busy.get() + 2);
        self.served.set(self.served.get().wrapping_add(1));
        self.mark.set(self.read.get());
    }

    /// One half of an exchange ended; `whole`: it was read to its end.
    pub fn half(&self, whole: bool) {
        let left = self.busy.get().saturating_sub(1);
        self.busy.set(left);
        if !whole {
            self.broken.set(true);
        }
        if left == 0 {
            self.mark.set(self.read.get());
        }
    }

    /// Requests served since the connection began.
    pub fn served(&self) -> u64 {
        self.served.get()
    }

    /// Whether an exchange is under way.
    pub fn is_busy(&self) -> bool {
        self.busy.get() > 0
    }

    /// The exchange under way agreed to an upgrade: HTTP ends with it, the stream does not.
    pub fn upgrade(&self) {
        self.upgrading.set(true);
    }

    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrading.get()
    }

    /// What is asked now.
    pub fn ask(&self) -> Ask {
        self.ask.get()
    }

    /// Withdraws a request to park that came at a bad moment.
    pub(super) fn refuse_park(&self) {
        if self.ask.get() == Ask::Park {
            self.ask.set(Ask::Stay);
        }
    }

    pub(super) fn may_park(&self) -> bool {
        self.busy.get() == 0 && !self.broken.get()
    }

    pub(super) fn set_parked(&self, parked: bool) {
        self.parked.set(parked);
        if parked {
            self.refuse_park();
        }
    }

    /// Remembers how many bytes came, so that the tick can tell a slow head from silence.
    pub(super) fn note_read(&self, total: u64) {
        self.read.set(total);
    }

    /// Remembers what waits to be sent, so that the tick can tell a peer that does not read; lets bodies
    /// flow again when it does.
    pub(super) fn note_sent(&self, sock: &Sock) {
        let waits = sock.unsent_bytes();
        self.unsent.set(sock.is_dirty());
        self.sent.set((sock.written_bytes(), waits));
        if waits < GATHER {
            self.passed.set(0);
            // Rarely is anybody there.
            self.held_up.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }

    /// Ready while the peer takes what it is sent; a body that may not flow is woken when it may.
    pub(super) fn poll_taking(&self, cx: &Context<'_>) -> Poll<()> {
        if self.sent.get().1 < GATHER && self.passed.get() < MOST_PASSED {
            return Poll::Ready(());
        }
        let mut held_up = self.held_up.borrow_mut();
        if !held_up.iter().any(|known| known.will_wake(cx.waker())) {
            held_up.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Bytes of a body are handed on.
    pub(super) fn pass(&self, bytes: usize) {
        self.passed.set(self.passed.get().saturating_add(bytes));
    }

    /// Bytes held for a peer that takes none; what a reading peer has under way is not counted.
    fn held(&self) -> usize {
        if self.stall_ticks.get() == 0 { 0 } else { self.sent.get().1.saturating_add(self.passed.get()) }
    }

    /// Whether the connection was ended because all together held too much.
    pub fn was_crowded(&self) -> bool {
        self.crowded.get()
    }

    /// Ticks since the connection began.
    pub(super) fn ticks(&self) -> u32 {
        self.ticks.get()
    }

    /// Keeps the task's waker, so that the tick can reach it.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the connection's task.
    pub fn wake(&self) {
        let waker = self.waker.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What the connection carries is no longer allowed: it is reset, whatever it is at.
    pub fn forbid(&self) {
        self.forbidden.set(true);
        self.want(Ask::Stalled);
    }

    /// Whether it was [forbidden](Self::forbid).
    pub fn is_forbidden(&self) -> bool {
        self.forbidden.get()
    }

    fn want(&self, ask: Ask) {
        if ask == Ask::Stalled || matches!(self.ask.get(), Ask::Stay | Ask::Park) {
            self.ask.set(ask);
            self.wake();
        }
    }

    fn look_for_stall(&self, limit: Duration) {
        let moved = self.sent_seen.replace(self.sent.get()) != self.sent.get();
        if moved || !self.unsent.get() {
            return self.stall_ticks.set(0);
        }
        let ticks = self.stall_ticks.get().saturating_add(1);
        self.stall_ticks.set(ticks);
        if TICK * ticks >= limit {
            self.want(Ask::Stalled);
        }
    }

    /// One tick's look at this connection.
    fn tick(&self, limits: &LiveLimits) {
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.look_for_stall(limits.stall);
        if self.busy.get() > 0 || self.seen.get() != self.served.get() {
            self.seen.set(self.served.get());
            self.idle_ticks.set(0);
            self.head_ticks.set(0);
            return;
        }
        if self.parks && self.read.get() != self.mark.get() && !self.parked.get() {
            let ticks = self.head_ticks.get() + 1;
            self.head_ticks.set(ticks);
            if TICK * ticks >= limits.head {
                self.want(Ask::SlowHead);
            }
            return;
        }
        let ticks = self.idle_ticks.get().saturating_add(1);
        self.idle_ticks.set(ticks);
        if TICK * ticks >= limits.idle {
            self.want(Ask::Idle);
        } else if self.parks && !self.parked.get() {
            self.want(Ask::Park);
        }
    }
}

/// All live connections of one thread.
#[derive(Debug, Default)]
pub struct Live {
    all: RefCell<Vec<Weak<Conn>>>,
    draining: Cell<bool>,
}

impl Live {
    /// Adds a connection; while draining it is asked to drain at once.
    pub fn add(&self, conn: &Rc<Conn>) {
        self.all.borrow_mut().push(Rc::downgrade(conn));
        if self.draining.get() {
            conn.want(Ask::Drain);
        }
    }

    /// Looks at every connection once.
    pub fn tick(&self, limits: &LiveLimits) {
        self.all.borrow_mut().retain(|conn| match conn.upgrade() {
            Some(conn) => {
                conn.tick(limits);
                true
            }
            None => false,
        });
        self.relieve(limits.held);
    }

    /// While peers that do not read make the thread hold too much, those that stand longest are ended.
    fn relieve(&self, limit: usize) {
        let all = self.all.borrow();
        let held = |conn: &Weak<Conn>| conn.upgrade().map_or(0, |conn| conn.held());
        let mut total: usize = all.iter().map(held).sum();
        if total <= limit {
            return;
        }
        let mut stalled: Vec<_> =
            all.iter().filter_map(Weak::upgrade).filter(|conn| conn.held() > 0).collect();
        stalled.sort_by_key(|conn| std::cmp::Reverse(conn.stall_ticks.get()));
        for conn in stalled {
            if total <= limit {
                break;
            }
            total = total.saturating_sub(conn.held());
            conn.crowded.set(true);
            conn.want(Ask::Stalled);
        }
    }

    /// Asks every connection, now and later, to finish and close.
    pub fn drain(&self) {
        self.draining.set(true);
        for conn in self.all.borrow().iter().filter_map(Weak::upgrade) {
            conn.want(Ask::Drain);
        }
    }

    /// Connections alive.
    pub fn count(&self) -> usize {
        self.all.borrow().iter().filter(|conn| conn.strong_count() > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LiveLimits = LiveLimits {
        head: Duration::from_secs(1),
        idle: Duration::from_secs(2),
        stall: Duration::from_secs(1),
        held: 1000,
    };

    fn live(conn: &Rc<Conn>) -> Live {
        let live = Live::default();
        live.add(conn);
        live
    }

    #[test]
    fn an_idle_connection_is_asked_to_park_and_later_to_close() {
        let conn = Conn::new(true);
        let live = live(&conn);
        live.tick(&LIMITS);
        assert_eq!(conn.ask(), Ask::Park);
        conn.set_parked(true);
        assert_eq!(conn.ask(), Ask::Stay);
        for _ in 0..8 {
            live.tick(&LIMITS);
        }
        assert_eq!(conn.ask(), Ask::Idle);
    }

    #[test]
    fn a_head_that_does_not_end_is_not_parked_but_closed() {
        let conn = Conn::new(true);
        let live = live(&conn);
        conn.note_read(5);
        live.tick(&LIMITS);
        assert_eq!(conn.ask(), Ask::Stay);
        for _ in 0..4 {
            live.tick(&LIMITS);
        }
        assert_eq!(conn.ask(), Ask::SlowHead);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_even_while_it_is_busy() {
        let conn = Conn::new(false);
        let live = live(&conn);
        conn.begin();
        conn.unsent.set(true);
        for written in 0..8 {
            conn.sent.set((written, 9));
            live.tick(&LIMITS);
        }
        assert_eq!(conn.ask(), Ask::Stay, "it takes a little each time");
        for _ in 0..4 {
            live.tick(&LIMITS);
        }
        assert_eq!(conn.ask(), Ask::Stalled);
    }

    #[test]
    fn of_peers_that_hold_too_much_together_the_slowest_go_first() {
        let (old, young, reading) = (Conn::new(false), Conn::new(false), Conn::new(false));
        let live = live(&old);
        live.add(&young);
        live.add(&reading);
        for conn in [&old, &young, &reading] {
            conn.begin();
            conn.unsent.set(true);
            conn.sent.set((1, 600));
        }
        young.unsent.set(false);
        live.tick(&LIMITS);
        live.tick(&LIMITS);
        young.unsent.set(true);
        reading.sent.set((2, 600));
        live.tick(&LIMITS);
        assert_eq!((old.ask(), young.ask(), reading.ask()), (Ask::Stalled, Ask::Stay, Ask::Stay));
        assert!(old.was_crowded());
    }

    #[test]
    fn a_busy_connection_is_left_alone() {
        let conn = Conn::new(true);
        let live = live(&conn);
        conn.note_read(100);
        conn.begin();
        for _ in 0..100 {
            live.tick(&LIMITS);
        }
        assert_eq!(conn.ask(), Ask::Stay);
        conn.half(true);
        conn.half(true);
        live.tick(&LIMITS);
        assert_eq!(conn.ask(), Ask::Park);
    }

    #[test]
    fn a_body_left_unread_forbids_parking() {
        let conn = Conn::new(true);
        conn.begin();
        conn.half(false);
        conn.half(true);
        assert!(!conn.may_park());
    }

    #[test]
    fn a_drain_reaches_connections_old_and_new() {
        let old = Conn::new(false);
        let live = live(&old);
        live.drain();
        let new = Conn::new(true);
        live.add(&new);
        assert_eq!((old.ask(), new.ask()), (Ask::Drain, Ask::Drain));
    }
}
