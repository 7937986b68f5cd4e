//! Both planes from one seed: manifests, streams, sidecars and requests in virtual time.
//!
//! ```text
//! churn ─► facts ─► manifests ─► Model ─compile─► Publisher ─► Session ─► epochs on a slow, cut link
//!            │                                                                 │
//!            └──► oracle ◄── every request, every snapshot ◄── Snapshot ◄── Adopter
//! ```
//!
//! What is compiled, published, sent, adopted and decided is the shipped code; sockets, threads and
//! clocks are not there. The oracle reads the facts and nothing else.
//!
//! Invariant: equal seeds give equal runs.
//! Invariant: after every step, no request went where its snapshot does not send it, none passed that
//! policy denies, every snapshot is one generation of the control plane, an ejected endpoint saw one
//! due probe at most, and retries stayed within the budget; once faults stop, all converge.

mod churn;
mod client;
mod facts;
mod ledger;
mod manifests;
mod oracle;
mod plane;
mod request;
mod sidecar;
mod world;

pub use world::{Failed, Stats, run};

/// A rule of the simulation that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A request went to what its snapshot, or the facts behind it, does not name.
    Named,
    /// A request passed that policy denies, or was denied though policy lets it pass.
    Policy,
    /// A request was routed other than the manifests say.
    Route,
    /// A snapshot is not exactly one generation of the control plane.
    Epoch,
    /// An ejected endpoint saw traffic.
    Ejection,
    /// More retries than the budget has.
    Budget,
    /// The sidecars did not converge.
    Converge,
    /// The planes do not understand each other.
    Contract,
}

/// What was broken, and how.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which rule.
    pub broken: Broken,
    /// How, for a person.
    pub text: String,
}

impl Violation {
    fn new(broken: Broken, text: impl Into<String>) -> Self {
        Self { broken, text: text.into() }
    }
}

/// A fault built into one part, which the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The adopter loses a backend that a route names.
    DropsBackend,
    /// The stream loses removals.
    LosesRemoval,
    /// The stream loses a change now and then.
    LosesUpsert,
    /// The sidecar takes half of an epoch.
    SplitsEpoch,
    /// The inbound lets pass what no rule allows.
    PassesDenied,
    /// The balancer picks what is ejected.
    ForgetsEjection,
    /// Retries cost nothing.
    RetriesForever,
    /// The balancer keeps endpoints that are gone.
    KeepsEndpoints,
    /// A sidecar does not come back after a cut.
    StaysAway,
}
