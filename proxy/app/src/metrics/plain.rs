//! Counters without a peer or a route: limits, TLS, lookups, dropped telemetry.
//!
//! Each room adds to the few that are its own.
//!
//! Invariant: label values come from closed enums or from the code, never from the network.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use weft_proxy_core::Probe;

use super::edge::Direction;
use super::own::{Certificate, Config};

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

/// The group on which a handshake agreed. Every connection of the mesh is TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// ML-KEM-768 together with X25519.
    Hybrid,
    /// X25519 alone.
    X25519,
    /// Another.
    Other,
}

impl Group {
    /// All groups, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Hybrid, Self::X25519, Self::Other];

    /// The group of this name.
    #[must_use]
    pub fn of(name: Option<&str>) -> Self {
        Self::ALL.into_iter().find(|group| Some(group.name()) == name).unwrap_or(Self::Other)
    }

    /// The word in labels. Source: IANA's registry of TLS supported groups.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hybrid => "X25519MLKEM768",
            Self::X25519 => "X25519",
            Self::Other => "other",
        }
    }
}

/// Whose name was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The control plane's.
    ControlPlane,
    /// A collector's of traces.
    Collector,
}

impl Purpose {
    /// All purposes, in the order of their declaration.
    pub const ALL: [Self; 2] = [Self::ControlPlane, Self::Collector];

    /// The word in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control_plane",
            Self::Collector => "collector",
        }
    }
}

/// How the resolution of a name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Naming {
    /// There are addresses.
    Found,
    /// The resolver said no, or nothing useful.
    Failed,
    /// No answer within the deadline.
    TimedOut,
}

impl Naming {
    /// All outcomes, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Found, Self::Failed, Self::TimedOut];

    /// The word in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
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
    agreed: [[Count; Group::ALL.len()]; 2],
    failures: [Named; 2],
    names: [[Count; Naming::ALL.len()]; Purpose::ALL.len()],
    limits: Named,
    /// Spans that a collector took.
    pub spans_exported: Count,
    /// State of the configuration.
    pub config: Config,
    /// State of the own certificate.
    pub certificate: Certificate,
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

    /// TLS connections of a direction that agreed on this.
    #[must_use]
    pub fn agreed(&self, direction: Direction, group: Group) -> &Count {
        &self.agreed[usize::from(direction == Direction::Outbound)][group as usize]
    }

    /// Handshakes of a direction that failed for `cause`, a word of the code's own. Takes a lock.
    pub fn failures(&self, direction: Direction) -> &Named {
        &self.failures[usize::from(direction == Direction::Outbound)]
    }

    /// Names that were resolved for a purpose, and how that ended.
    #[must_use]
    pub fn names(&self, purpose: Purpose, outcome: Naming) -> &Count {
        &self.names[purpose as usize][outcome as usize]
    }

    /// How often a limit was hit, by the limit's name in ARCHITECTURE.md. Takes a lock: keep the handle
    /// where the limit may be hit often.
    pub fn limit(&self, name: &'static str) -> Arc<Count> {
        self.limits.of(name)
    }

    /// All limits asked for so far.
    pub fn limits(&self) -> Vec<(&'static str, Arc<Count>)> {
        self.limits.all()
    }
}

/// Counts by a word of the code's own.
#[derive(Debug, Default)]
pub struct Named(Mutex<Vec<(&'static str, Arc<Count>)>>);

impl Named {
    /// The count of this word. Takes a lock.
    pub fn of(&self, name: &'static str) -> Arc<Count> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = held.iter().find(|(known, _)| *known == name) {
            return Arc::clone(count);
        }
        let count = Arc::new(Count::default());
        held.push((name, Arc::clone(&count)));
        count
    }

    /// All words asked for so far, sorted.
    pub fn all(&self) -> Vec<(&'static str, Arc<Count>)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|(name, _)| *name);
        all
    }
}
