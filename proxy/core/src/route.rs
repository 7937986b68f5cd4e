//! The parts of routing: matches, the table they are looked up in, rules, filters, turns.
//!
//! Under `outbound`, which is the only way in.
//!
//! Invariant: everything a request needs was compiled before it came: patterns, names, weights.

pub mod condition;
pub mod filter;
pub mod rule;
pub mod table;
pub mod turns;
