//! The rooms that a connection and its requests walk through, in order:
//! accept, identify, detect, authorize, route, balance, connect, relay.
//!
//! Invariant: a room calls no other room; only the spines (`inbound.rs`, `outbound.rs`) do.
//! Invariant: each room has one entrance: one function, one input, one output.

pub(crate) mod accept;
pub(crate) mod authorize;
pub(crate) mod balance;
pub(crate) mod connect;
pub(crate) mod detect;
pub(crate) mod identify;
pub(crate) mod relay;
pub(crate) mod route;
