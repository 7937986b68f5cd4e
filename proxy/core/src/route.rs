//! The parts of routing: matches, the table they are looked up in, rules, filters, turns.
//!
//! Under `outbound`, which is the only way in.
//!
//! Invariant: everything a request needs was compiled before it came: patterns, names, weights.

pub(crate) mod condition;
pub(crate) mod filter;
pub(crate) mod rule;
pub(crate) mod survey;
pub(crate) mod table;
pub(crate) mod turns;
