//! What an HTTP/2 peer spends without making progress, counted frame by frame.
//!
//! Stands between a connection's bytes and hyper, on both sides: h2 answers PING and SETTINGS, and
//! ignores PRIORITY and unknown types, without end; it queues interim answers without a cap. So the
//! frame heads are read in passing, and a peer that goes beyond its budget reads as broken.
//!
//! Invariant: bytes pass unchanged; nothing is copied and nothing is allocated.
//! Invariant: frames that belong to work (requests, bodies sent and received) cost nothing.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::live::Conn;
use crate::buffers::Room;
use crate::sock::Io;

/// Source: RFC 9113 §3.4.
const PREFACE: usize = 24;
/// Source: RFC 9113 §4.1.
const HEAD: usize = 9;
/// Bytes written beyond acknowledgements that pay for one control frame. Source: the smallest DATA frame
/// with a gRPC message has 14; a peer may answer each with two WINDOW_UPDATE.
const PRICE: u64 = 8;
/// Field sections of one answer that are not interim: its head and its trailers.
const SECTIONS: i64 = 2;
/// GOAWAY with no stream accepted further and ENHANCE_YOUR_CALM. Source: RFC 9113 §6.8, §7.
const CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];

/// What a peer went beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Control frames without progress.
    Control,
    /// Interim answers.
    Interim,
}

/// Budgets of one connection.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Control frames without progress between two requests. Source: nginx ends floods at some 1,000.
    pub control: u32,
    /// Interim answers to one request.
    pub interim: u32,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { control: 1000, interim: 16 }
    }
}

/// One connection's account.
#[derive(Debug)]
pub struct Watch {
    limits: FrameLimits,
    scan: RefCell<Scan>,
    spent: Cell<u32>,
    /// Bytes of acknowledgements that frames so far make h2 write.
    owed: Cell<u64>,
    /// Written bytes that have been turned into credit.
    credited: Cell<u64>,
    /// Field sections that the upstream may still send; `None` for a downstream, which opens streams.
    sections: Option<Cell<i64>>,
    flood: Cell<Option<Flood>>,
    /// The last write was taken whole: the next byte begins a frame.
    whole: Cell<bool>,
}

impl Watch {
    /// The account of a downstream, whose connection begins with a preface.
    pub fn downstream(limits: FrameLimits) -> Rc<Self> {
        Self::new(limits, PREFACE, None)
    }

    /// The account of an upstream.
    pub fn upstream(limits: FrameLimits) -> Rc<Self> {
        Self::new(limits, 0, Some(Cell::new(0)))
    }

    fn new(limits: FrameLimits, skip: usize, sections: Option<Cell<i64>>) -> Rc<Self> {
        Rc::new(Self {
            limits,
            scan: RefCell::new(Scan { skip, ..Scan::default() }),
            spent: Cell::new(0),
            owed: Cell::new(0),
            credited: Cell::new(0),
            sections,
            flood: Cell::new(None),
            whole: Cell::new(true),
        })
    }

    /// What the peer went beyond, if it did.
    pub fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// A request goes to the upstream; `active` are under way with it.
    pub fn asked(&self, active: usize) {
        if let Some(sections) = &self.sections {
            let each = SECTIONS + i64::from(self.limits.interim);
            let most = each.saturating_mul(i64::try_from(active.max(1)).unwrap_or(i64::MAX));
            sections.set((sections.get() + each).min(most));
        }
    }

    /// Time passed: one frame of long ago is forgiven (pings that keep an idle stream alive).
    pub fn forgive(&self) {
        self.spent.set(self.spent.get().saturating_sub(1));
    }

    fn written(&self, total: u64) {
        let (earned, credited) = (total.saturating_sub(self.owed.get()), self.credited.get());
        let units = earned.saturating_sub(credited) / PRICE;
        if units > 0 {
            self.credited.set(credited + units * PRICE);
            self.spent.set(self.spent.get().saturating_sub(u32::try_from(units).unwrap_or(u32::MAX)));
        }
    }

    fn frame(&self, kind: u8, flags: u8) {
        const ACK: u8 = 1;
        match kind {
            // DATA and CONTINUATION: h2 ends floods of empty ones itself.
            0 | 9 => return,
            1 => return self.headers(),
            4 if flags & ACK == 0 => self.owed.set(self.owed.get() + HEAD as u64),
            6 if flags & ACK == 0 => self.owed.set(self.owed.get() + HEAD as u64 + 8),
            _ => {}
        }
        self.spent.set(self.spent.get().saturating_add(1));
        if self.spent.get() > self.limits.control {
            self.flood.set(Some(Flood::Control));
        }
    }

    fn headers(&self) {
        match &self.sections {
            // A request: h2 bounds how many there are and how many are given up.
            None => self.spent.set(0),
            Some(sections) => {
                sections.set(sections.get() - 1);
                if sections.get() < 0 {
                    self.flood.set(Some(Flood::Interim));
                }
            }
        }
    }
}

/// Where in the stream of frames the next byte is.
#[derive(Debug, Default)]
struct Scan {
    /// Bytes of the preface or of a payload still to come.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Scan {
    fn feed(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            let n = (HEAD - self.filled).min(bytes.len());
            let (now, later) = bytes.split_at(n);
            if let Some(room) = self.head.get_mut(self.filled..self.filled + n) {
                room.copy_from_slice(now);
            }
            self.filled += n;
            bytes = later;
            if self.filled == HEAD {
                self.filled = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                frame(kind, flags);
            }
        }
    }
}

/// A connection whose frames are watched.
#[derive(Debug)]
pub struct FrameIo {
    io: Io,
    watch: Rc<Watch>,
    /// The downstream connection, for its time.
    conn: Option<Rc<Conn>>,
    ticks: u32,
}

impl FrameIo {
    /// Watches what is read from `io`.
    pub fn new(io: Io, watch: Rc<Watch>, conn: Option<Rc<Conn>>) -> Self {
        Self { io, watch, conn, ticks: 0 }
    }

    fn settle(&mut self) {
        self.watch.written(self.io.0.borrow().written_bytes());
        if let Some(conn) = &self.conn
            && conn.ticks() != self.ticks
        {
            for _ in 0..conn.ticks().wrapping_sub(self.ticks).min(self.watch.limits.control) {
                self.watch.forgive();
            }
            self.ticks = conn.ticks();
        }
    }
}

/// Says the last word to a downstream that flooded, where a frame may begin.
pub(super) fn calm(io: &Io, watch: &Watch) {
    if watch.whole.get() {
        io.0.borrow_mut().inject(&CALM);
    }
}

/// Room whose bytes are looked at when they are put.
struct Seen<'a, R> {
    room: &'a mut R,
    watch: &'a Watch,
}

impl<R: Room> Room for Seen<'_, R> {
    fn room(&self) -> usize {
        self.room.room()
    }
    fn put(&mut self, bytes: &[u8]) {
        self.watch.scan.borrow_mut().feed(bytes, |kind, flags| self.watch.frame(kind, flags));
        self.room.put(bytes);
    }
}

impl hyper::rt::Read for FrameIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        let this = self.get_mut();
        this.settle();
        let mut seen = Seen { room: &mut buf, watch: &this.watch };
        ready!(this.io.0.borrow_mut().poll_read_to(cx, &mut seen))?;
        Poll::Ready(match this.watch.flood.get() {
            None => Ok(()),
            Some(_) => Err(ErrorKind::ConnectionAborted.into()),
        })
    }
}

impl hyper::rt::Write for FrameIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let taken = ready!(self.io.0.borrow_mut().poll_write(cx, parts))?;
        self.watch.whole.set(taken == parts.iter().map(|part| part.len()).sum::<usize>());
        Poll::Ready(Ok(taken))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.io.0.borrow_mut().poll_finish(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn feed(watch: &Watch, bytes: &[u8]) {
        watch.scan.borrow_mut().feed(bytes, |kind, flags| watch.frame(kind, flags));
    }

    fn head(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend(vec![0xff; usize::from(length)]);
        bytes
    }

    fn downstream(control: u32) -> Rc<Watch> {
        let watch = Watch::downstream(FrameLimits { control, interim: 2 });
        feed(&watch, &[0x20; PREFACE]);
        watch
    }

    #[test]
    fn control_frames_beyond_the_budget_are_a_flood_however_they_are_cut() {
        for cut in 1..20 {
            let watch = downstream(10);
            let bytes = head(PING, 8).repeat(11);
            let (mut fed, last) = (0, bytes.len() - 8);
            while fed < last - 1 {
                let n = cut.min(last - 1 - fed);
                feed(&watch, &bytes[fed..fed + n]);
                fed += n;
            }
            assert_eq!(watch.flood(), None, "cut {cut}");
            feed(&watch, &bytes[fed..]);
            assert_eq!(watch.flood(), Some(Flood::Control), "cut {cut}");
        }
    }

    #[test]
    fn a_request_and_bytes_sent_pay_for_control_frames_but_acknowledgements_do_not() {
        let watch = downstream(10);
        for _ in 0..10 {
            feed(&watch, &head(PING, 8).repeat(10));
            feed(&watch, &head(1, 5));
        }
        feed(&watch, &head(PING, 8).repeat(10));
        watch.written(10 * PRICE + watch.owed.get());
        feed(&watch, &head(PING, 8).repeat(10));
        assert_eq!(watch.flood(), None);
        watch.written(10 * PRICE + watch.owed.get());
        feed(&watch, &head(PING, 8));
        assert_eq!(watch.flood(), Some(Flood::Control), "what was written were acknowledgements");
    }

    #[test]
    fn bodies_cost_nothing() {
        let watch = downstream(10);
        feed(&watch, &head(0, 200).repeat(10_000));
        assert_eq!(watch.flood(), None);
    }

    #[test]
    fn an_upstream_may_send_so_many_interim_answers_a_request() {
        let watch = Watch::upstream(FrameLimits { control: 10, interim: 2 });
        for _ in 0..100 {
            watch.asked(1);
            feed(&watch, &head(1, 5).repeat(4));
        }
        assert_eq!(watch.flood(), None);
        feed(&watch, &head(1, 5));
        assert_eq!(watch.flood(), Some(Flood::Interim));
    }

    #[test]
    fn unused_interim_answers_are_not_saved_up() {
        let watch = Watch::upstream(FrameLimits { control: 10, interim: 2 });
        for _ in 0..100 {
            watch.asked(1);
            feed(&watch, &head(1, 5));
        }
        feed(&watch, &head(1, 5).repeat(4));
        assert_eq!(watch.flood(), Some(Flood::Interim));
    }
}
