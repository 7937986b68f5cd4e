//! What is measured: the scenarios, the load each puts on a peer, and the goals that stand in the issue.
//! Before this: `bench` reads the command line. After it: `measure` runs the scenarios.
//!
//! Invariant: a scenario is data; every peer meets the very same one.

use anyhow::{Context as _, Result};

/// The kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// HTTP/1.1 GET, 1 KiB answers.
    Http,
    /// gRPC-shaped HTTP/2: POST, 105 bytes up, 1,029 down, trailers.
    Grpc,
    /// Bytes that no proxy should look into.
    Tcp,
}

impl Shape {
    /// The word for it on command lines and in reports.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    /// The shape of that word.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn named(word: &str) -> Result<Self> {
        [Self::Http, Self::Grpc, Self::Tcp]
            .into_iter()
            .find(|shape| shape.word() == word)
            .with_context(|| format!("no such shape: {word}"))
    }
}

/// How requests come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    /// As fast as answers come back, on so many connections with so many streams each.
    Closed { connections: usize, streams: usize },
    /// At a fixed rate whether or not answers come back; latency counts from the due time.
    Open { rps: u32, connections: usize },
    /// One connection, bytes from server to client as fast as they go.
    Bulk,
    /// Connect, one exchange, close; so many at a time.
    Churn { at_once: usize },
    /// Connections that had one exchange each and then nothing: `few`, then `many`.
    Idle { few: usize, many: usize },
}

/// One row of the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// One line for the report.
    pub(crate) title: &'static str,
    /// Kind of traffic.
    pub(crate) shape: Shape,
    /// How it comes.
    pub(crate) load: Load,
    /// Whether Weft may resume TLS sessions between the sidecars; the others never do.
    pub(crate) resume: bool,
    /// Ratio of Weft's CPU to Envoy's that must hold, and the one aimed at.
    pub(crate) goal: Option<(f64, f64)>,
}

impl Scenario {
    const fn new(name: &'static str, title: &'static str, shape: Shape, load: Load) -> Self {
        Self { name, title, shape, load, resume: true, goal: None }
    }

    const fn goal(self, must: f64, aim: f64) -> Self {
        Self { goal: Some((must, aim)), ..self }
    }

    const fn full_handshakes(self) -> Self {
        Self { resume: false, ..self }
    }

    /// The same with fewer idle connections, to prove that the rig works.
    pub(crate) fn quick(self) -> Self {
        match self.load {
            Load::Idle { .. } => Self { load: Load::Idle { few: 100, many: 500 }, ..self },
            _ => self,
        }
    }
}

/// All scenarios, in the order they run.
///
/// Source of shapes and counts: what was measured for linkerd2-proxy, ztunnel, nginx and others with the same rig shape
/// (50 connections, 10 x 10 streams, 8 connecting at a time), so that figures can be compared.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "http-max",
        "HTTP/1.1, 1 KiB, closed loop on 50 connections",
        Shape::Http,
        Load::Closed { connections: 50, streams: 1 },
    )
    .goal(0.42, 0.34),
    Scenario::new(
        "http-1000",
        "HTTP/1.1, 1 KiB, 1,000 rps open loop",
        Shape::Http,
        Load::Open { rps: 1000, connections: 50 },
    )
    .goal(0.48, 0.42),
    Scenario::new(
        "http-2000",
        "HTTP/1.1, 1 KiB, 2,000 rps open loop",
        Shape::Http,
        Load::Open { rps: 2000, connections: 50 },
    ),
    Scenario::new(
        "grpc-max",
        "gRPC shape, closed loop, 10 connections x 10 streams",
        Shape::Grpc,
        Load::Closed { connections: 10, streams: 10 },
    )
    .goal(0.52, 0.42),
    Scenario::new(
        "grpc-1000",
        "gRPC shape, 1,000 rps open loop",
        Shape::Grpc,
        Load::Open { rps: 1000, connections: 10 },
    ),
    Scenario::new("bulk", "one opaque TCP stream, server to client", Shape::Tcp, Load::Bulk).goal(1.15, 1.0),
    Scenario::new(
        "conn",
        "new opaque connections, a full mTLS handshake each, 8 at a time",
        Shape::Tcp,
        Load::Churn { at_once: 8 },
    )
    .goal(0.85, 0.80)
    .full_handshakes(),
    Scenario::new(
        "conn-resumed",
        "new opaque connections, Weft may resume TLS sessions, the others do not",
        Shape::Tcp,
        Load::Churn { at_once: 8 },
    )
    .goal(0.5, 0.5),
    Scenario::new(
        "idle-http",
        "idle HTTP/1.1 connections",
        Shape::Http,
        Load::Idle { few: 1000, many: 5000 },
    ),
    Scenario::new(
        "idle-tcp",
        "idle opaque connections, mTLS for each",
        Shape::Tcp,
        Load::Idle { few: 1000, many: 5000 },
    ),
];

/// The scenarios of these names, in the order of the plan; all of them when there are no names.
///
/// # Errors
/// A name is unknown.
pub(crate) fn chosen(names: &[String], quick: bool) -> Result<Vec<Scenario>> {
    for name in names {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            anyhow::bail!("no scenario {name}; there are: {}", known.join(", "));
        }
    }
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    let sized = |scenario: &Scenario| if quick { scenario.quick() } else { *scenario };
    Ok(SCENARIOS.iter().filter(wanted).map(sized).collect())
}
