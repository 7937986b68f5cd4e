//! Every decision of the sidecar, and nothing else: what a connection speaks, who may pass, which
//! rule takes a request, which endpoint serves it, whether to try again.
//!
//! The crate stands under the rooms of `weft-proxy`: a room gathers facts from sockets and clocks,
//! asks here, and carries the answer out. `weft explain`, `weft check` and the simulation ask the
//! same functions.
//!
//! Invariant: pure. No socket, no runtime, no clock, no global randomness; time ([`Moment`]) and
//! chance ([`Chance`]) are arguments, so equal input gives equal decisions.
//! Invariant: input from the network or from manifests never panics.

pub mod alpn;
pub mod authorize;
pub mod backend;
pub mod balance;
pub mod budget;
pub mod chance;
pub mod detect;
pub mod eject;
pub mod explain;
pub mod head;
pub mod hygiene;
pub mod inbound;
pub mod invalid;
pub mod load;
pub mod moment;
pub mod names;
pub mod outbound;
pub mod path;
pub mod probe;
pub mod reason;
pub mod retry;
mod route;
pub mod secret;
pub mod snapshot;
pub mod spec;

pub use alpn::{Hop, Taken};
pub use authorize::{Denial, Peer, Policy, RuleRef, Verdict};
pub use backend::{Backend, Endpoint, TrafficPolicy};
pub use balance::{Balancer, EndpointId, Pick};
pub use budget::RetryBudget;
pub use chance::Chance;
pub use detect::{ClientHello, Detection, client_hello, detect};
pub use eject::{Event, Outcome};
pub use head::Head;
pub use hygiene::Refusal;
pub use inbound::Inbound;
pub use invalid::Invalid;
pub use moment::Moment;
pub use names::{Identity, Name, WorkloadName};
pub use outbound::{Decision, Label, Outbound, Plan, Reply, Timeouts, Turns};
pub use probe::{Probe, Sent};
pub use reason::{Blame, Reason};
pub use retry::{Failure, may_retry};
pub use snapshot::{Snapshot, Target};
