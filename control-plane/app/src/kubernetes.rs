//! What a control plane does with a Kubernetes API server besides watching it.
//!
//! ```text
//! lease → who writes        root → authority → trust        report → conditions → objects' status
//!                           events: what a person should notice, from everywhere
//! ```
//!
//! Invariant: every replica serves; only the holder of the Lease writes.

pub mod counts;
pub mod events;
pub mod lease;
