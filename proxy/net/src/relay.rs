//! The byte relay between two connections: opaque TCP, and HTTP after an upgrade.
//!
//! Last room of the walk for bytes nobody looks into. Bytes go from one socket through a scratch area of the
//! thread straight to the other; only what the other side does not take at once is kept, in its [`Sock`].
//!
//! Invariant: a side is read only when all earlier bytes for the other have reached the kernel, so at most
//! [`CHUNK`] bytes are held for each direction, and none while nothing moves.
//! Invariant: the end of one direction closes that direction only; a cut of either side is passed on as a
//! reset, never as an orderly end.

use crate::buffers::{Area, with_scratch};
use crate::sock::Sock;
use crate::sweep::{Due, Watch};
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::ReadBuf;

/// Most bytes moved by one read and one write.
/// Source: measured on loopback; larger reads saved no CPU, smaller ones cost system calls.
pub const CHUNK: usize = 64 * 1024;

/// Reads of one direction before other tasks get their turn.
/// Source: 1 MiB, well below a millisecond of work.
const TURNS: usize = 16;

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both directions reached their end.
    Clean,
    /// The downstream connection failed.
    DownstreamReset,
    /// The upstream connection failed.
    UpstreamReset,
    /// Nothing moved for the idle time.
    Idle,
    /// A TLS side ended without saying so: bytes may be missing.
    Cut,
    /// The drain's deadline passed.
    Drained,
}

/// What a relay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes taken from downstream for upstream.
    pub up: u64,
    /// Bytes taken from upstream for downstream.
    pub down: u64,
    /// How it ended.
    pub end: Ended,
}

/// A failed side, and whether it was cut short rather than reset.
enum Failed {
    Reader(Error),
    Writer,
}

/// Relays until both directions have ended, something fails or the watch is due.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Relay {
    downstream: Sock,
    upstream: Sock,
    watch: Watch,
    up: u64,
    down: u64,
}

impl Relay {
    /// Relays between the two; ends as [`Ended::Idle`] when nothing moves for `idle`.
    pub fn new(downstream: Sock, upstream: Sock, watch: Watch, idle: Option<Duration>) -> Self {
        match idle {
            Some(idle) => watch.arm(idle),
            None => watch.disarm(),
        }
        Self { downstream, upstream, watch, up: 0, down: 0 }
    }

    /// Makes both connections end with a reset when the relay is dropped: it was forbidden, not finished.
    pub fn abort(&self) {
        self.downstream.abort();
        self.upstream.abort();
    }

    /// Bytes moved so far: from downstream, from upstream.
    #[must_use]
    pub fn moved(&self) -> (u64, u64) {
        (self.up, self.down)
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let before = self.up + self.down;
        let up = pump(cx, &mut self.downstream, &mut self.upstream, &mut self.up);
        let up = match up {
            Ok(ended) => ended,
            Err(failed) => {
                return Poll::Ready(ended_by(&failed, Ended::DownstreamReset, Ended::UpstreamReset));
            }
        };
        let down = pump(cx, &mut self.upstream, &mut self.downstream, &mut self.down);
        let down = match down {
            Ok(ended) => ended,
            Err(failed) => {
                return Poll::Ready(ended_by(&failed, Ended::UpstreamReset, Ended::DownstreamReset));
            }
        };
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ended::Clean);
        }
        if self.up + self.down != before {
            self.watch.touch();
        }
        self.watch.poll_due(cx).map(|due| match due {
            Due::Deadline => Ended::Idle,
            Due::Cut => Ended::Drained,
        })
    }

    /// Leaves both connections so that their peers see what happened.
    fn leave(&mut self, cx: &mut Context<'_>, end: Ended) {
        for sock in [&mut self.downstream, &mut self.upstream] {
            match end {
                Ended::Clean => {}
                // Nothing was lost: as orderly as can be had without waiting.
                Ended::Idle | Ended::Drained => drop(sock.poll_finish(cx)),
                Ended::DownstreamReset | Ended::UpstreamReset | Ended::Cut => sock.abort(),
            }
        }
    }
}

impl Future for Relay {
    type Output = Relayed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Relayed> {
        let this = self.get_mut();
        this.poll_both(cx).map(|end| {
            this.leave(cx, end);
            Relayed { up: this.up, down: this.down, end }
        })
    }
}

/// Which end a failure means.
fn ended_by(failed: &Failed, reader: Ended, writer: Ended) -> Ended {
    match failed {
        Failed::Reader(error) if error.kind() == ErrorKind::UnexpectedEof => Ended::Cut,
        Failed::Reader(_) => reader,
        Failed::Writer => writer,
    }
}

/// Moves bytes one way until something has to wait; ready when this way has ended and said so.
fn pump(cx: &mut Context<'_>, from: &mut Sock, to: &mut Sock, moved: &mut u64) -> Result<Poll<()>, Failed> {
    if to.is_finished() {
        return Ok(Poll::Ready(()));
    }
    for _ in 0..TURNS {
        if to.is_dirty() && to.poll_flush_now(cx).map_err(|_| Failed::Writer)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let read = with_scratch(Area::Plain, |area| {
            let mut room = ReadBuf::new(area.get_mut(..CHUNK).unwrap_or_default());
            match from.poll_read(cx, &mut room).map_err(Failed::Reader)? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(()) => {}
            }
            let bytes = room.filled();
            to.write_or_keep(cx, bytes).map_err(|_| Failed::Writer)?;
            Ok(Poll::Ready(bytes.len()))
        })?;
        match read {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(0) => return Ok(to.poll_finish(cx).map_err(|_| Failed::Writer)?),
            Poll::Ready(n) => *moved += n as u64,
        }
    }
    cx.waker().wake_by_ref();
    Ok(Poll::Pending)
}

#[cfg(test)]
mod tests;
