//! Counters without a peer or a route: limits, TLS, lookups, configuration, certificate, dropped telemetry.
//!
//! Each room adds to the few that are its own.
//!
//! Invariant: label values come from closed enums or from the code, never from the network.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weft_proxy_core::Probe;

use super::edge::Direction;

/// A counter that only rises.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn up(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a TLS handshake of the mesh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Handshake {
    /// Completed in full.
    Full,
    /// Completed by resuming an earlier session.
    Resumed,
    /// Failed for another reason than those below.
    Failed,
    /// Took longer than its deadline.
    TimedOut,
    /// The peer's certificate was not acceptable: expired, unknown issuer, no or another identity.
    BadCertificate,
}

impl Handshake {
    /// All outcomes, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::Resumed, Self::Failed, Self::TimedOut, Self::BadCertificate];

    /// The word in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::BadCertificate => "bad_certificate",
        }
    }
}

/// How the search for a destination's configuration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lookup {
    /// Known already.
    Held,
    /// The control plane answered.
    Found,
    /// The control plane knows nothing there.
    Unknown,
    /// No answer within the deadline.
    TimedOut,
}

impl Lookup {
    /// All outcomes, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Held, Self::Found, Self::Unknown, Self::TimedOut];

    /// The word in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Found => "found",
            Self::Unknown => "unknown",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Telemetry that was dropped rather than waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dropped {
    /// A line of the access log: the writer was behind.
    LogLine,
    /// A span: the queue to the exporter was full.
    SpanQueue,
    /// A span: the collector did not take it.
    SpanExport,
}

impl Dropped {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::LogLine, Self::SpanQueue, Self::SpanExport];

    /// The words in labels: what, and where it was lost.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::LogLine => ("log_line", "queue"),
            Self::SpanQueue => ("span", "queue"),
            Self::SpanExport => ("span", "export"),
        }
    }
}

/// How a guessed protocol was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Guess {
    /// HTTP/1 by its request line.
    Http1,
    /// HTTP/2 by its preface.
    Http2,
    /// TLS by its ClientHello.
    Tls,
    /// Other bytes.
    Opaque,
    /// The server spoke first.
    ServerFirst,
    /// Nobody spoke in time.
    Silent,
}

impl Guess {
    /// All guesses, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Http1, Self::Http2, Self::Tls, Self::Opaque, Self::ServerFirst, Self::Silent];

    /// The word in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
            Self::ServerFirst => "server_first",
            Self::Silent => "silent",
        }
    }
}

/// The plain counters.
#[derive(Debug, Default)]
pub struct Plain {
    handshakes: [[Count; Handshake::ALL.len()]; 2],
    lookups: [Count; Lookup::ALL.len()],
    dropped: [Count; Dropped::ALL.len()],
    guesses: [[Count; Guess::ALL.len()]; 2],
    probes: [Count; Probe::ALL.len()],
    limits: Mutex<Vec<(&'static str, Arc<Count>)>>,
    /// Spans that a collector took.
    pub spans_exported: Count,
    /// State of the configuration.
    pub config: Config,
    /// State of the own certificate.
    pub certificate: Certificate,
}

/// State of the configuration.
#[derive(Debug, Default)]
pub struct Config {
    /// Epochs taken into use.
    pub adopted: Count,
    /// Resources refused.
    pub refused: Count,
    /// Times the stream to the control plane was opened.
    pub connects: Count,
    generation: AtomicU64,
    adopted_at: AtomicU64,
    connected: AtomicBool,
}

impl Config {
    /// A new epoch is in use since `unix_nanos`.
    pub fn adopt(&self, generation: u64, unix_nanos: u64) {
        self.adopted.up();
        self.generation.store(generation, Ordering::Relaxed);
        self.adopted_at.store(unix_nanos, Ordering::Relaxed);
    }

    /// The stream to the control plane opened or was lost.
    pub fn connect(&self, connected: bool) {
        if connected {
            self.connects.up();
        }
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// The epoch in use.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Since when it is in use, in nanoseconds since 1970; 0 for never.
    #[must_use]
    pub fn adopted_at(&self) -> u64 {
        self.adopted_at.load(Ordering::Relaxed)
    }

    /// Whether the stream to the control plane is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

/// State of the own certificate.
#[derive(Debug, Default)]
pub struct Certificate {
    /// Certificates obtained.
    pub renewed: Count,
    /// Attempts to obtain one that failed.
    pub failed: Count,
    not_after: AtomicU64,
    trust_not_after: AtomicU64,
}

impl Certificate {
    /// A certificate is in use that expires at `unix_seconds`.
    pub fn renew(&self, unix_seconds: u64) {
        self.renewed.up();
        self.not_after.store(unix_seconds, Ordering::Relaxed);
    }

    /// The trust bundle in use; `unix_seconds` when the first of its roots expires.
    pub fn trust(&self, unix_seconds: u64) {
        self.trust_not_after.store(unix_seconds, Ordering::Relaxed);
    }

    /// When the certificate expires, in seconds since 1970; 0 for none.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after.load(Ordering::Relaxed)
    }

    /// When the first root expires, in seconds since 1970; 0 for none.
    #[must_use]
    pub fn trust_not_after(&self) -> u64 {
        self.trust_not_after.load(Ordering::Relaxed)
    }
}

impl Plain {
    /// Handshakes of a direction that ended so.
    #[must_use]
    pub fn handshakes(&self, direction: Direction, outcome: Handshake) -> &Count {
        &self.handshakes[usize::from(direction == Direction::Outbound)][outcome as usize]
    }

    /// Connections of a direction whose protocol was guessed so.
    #[must_use]
    pub fn guesses(&self, direction: Direction, guess: Guess) -> &Count {
        &self.guesses[usize::from(direction == Direction::Outbound)][guess as usize]
    }

    /// Lookups that ended so.
    #[must_use]
    pub fn lookups(&self, outcome: Lookup) -> &Count {
        &self.lookups[outcome as usize]
    }

    /// Probes of the kubelet that passed as such.
    #[must_use]
    pub fn probes(&self, probe: Probe) -> &Count {
        &self.probes[probe as usize]
    }

    /// Telemetry dropped so.
    #[must_use]
    pub fn dropped(&self, kind: Dropped) -> &Count {
        &self.dropped[kind as usize]
    }

    /// How often a limit was hit, by the limit's name in ARCHITECTURE.md. Takes a lock: keep the handle
    /// where the limit may be hit often.
    pub fn limit(&self, name: &'static str) -> Arc<Count> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = limits.iter().find(|(known, _)| *known == name) {
            return Arc::clone(count);
        }
        let count = Arc::new(Count::default());
        limits.push((name, Arc::clone(&count)));
        count
    }

    /// All limits asked for so far.
    pub fn limits(&self) -> Vec<(&'static str, Arc<Count>)> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
