//! The sidecar: two spines that read like the walk, the rooms they call, and what stands beside them.
//!
//! Data threads run the spines; one more thread runs the chores (control stream, certificates, admin,
//! export). See ARCHITECTURE.md for both walks.
//!
//! Invariant: data threads share immutable snapshots and atomic counters, nothing else.

pub mod access_log;
pub mod admin;
pub mod adopt;
pub mod app;
pub mod backoff;
pub mod certify;
pub mod dial;
pub mod explain;
pub mod hold;
pub mod init;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod observe;
pub mod record;
pub mod settings;
pub mod snapshots;
pub mod subscribe;
pub mod trace;
pub mod visit;
pub mod wait;

mod allowed;
mod convert;
mod edges;
mod exchange;
mod inbound;
mod kept;
mod outbound;
mod plane;
mod reply;
mod resolve;
mod rooms;
mod seat;
mod spare;
mod stream;
mod upstream;
mod worker;

#[cfg(test)]
mod testing;
