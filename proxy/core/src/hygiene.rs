//! What hyper and h2 leave to us: heads that must not pass, and fields that must not travel on.
//!
//! The relay checks a head before anything else looks at it, and scrubs it before it leaves.
//!
//! Invariant: what passed [`check_request`] names one host, one length and one path for every reader.
//! Invariant: the common clean head costs one walk over its fields and no allocation.

mod fields;
mod request;
mod response;
mod trailers;

use http::StatusCode;

use crate::reason::Reason;

pub use fields::{is_forwarded, is_own};
pub use request::{check_request, is_valid_authority, scrub_request, upgrade};
pub use response::{Asked, check_response, scrub_response};
pub use trailers::scrub_trailers;

/// A head that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status for the downstream.
    pub status: StatusCode,
    /// Why.
    pub reason: Reason,
    /// Whether the connection it came on is closed, because its framing cannot be trusted.
    pub close: bool,
}

impl Refusal {
    /// A refusal with the reason's own status; the connection goes on.
    #[must_use]
    pub fn of(reason: Reason) -> Self {
        Self { status: reason.status(), reason, close: false }
    }

    /// The same, and the connection is closed.
    #[must_use]
    pub fn closing(reason: Reason) -> Self {
        Self { close: true, ..Self::of(reason) }
    }
}

/// What may stay in a head that is passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The upgrade that was asked for (see [`upgrade`]) is carried out.
    pub upgrade: bool,
    /// `weft-*` fields: the other side is a proven sidecar of the mesh.
    pub own: bool,
}

#[cfg(test)]
mod tests;
