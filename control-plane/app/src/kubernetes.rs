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
pub mod root;
pub mod trust;

use std::collections::BTreeMap;

/// What marks the objects that the control plane makes by itself.
pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/part-of".to_owned(), "weft".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "weft-control-plane".to_owned()),
    ])
}
