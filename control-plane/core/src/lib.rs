//! The control plane's decisions: what the facts of a cluster, or of a folder, mean to each sidecar.
//!
//! The configuration's walk, as far as it is pure:
//!
//! ```text
//! document ─read→ Object ─apply→ Model ─validate→ Report
//!                                  └───compile──→ Config ─(publish: encode)→ Session ─→ epochs
//! ```
//!
//! The application brings documents and events, encodes resources, and moves epochs; everything that
//! is decided is decided here, which is why `weft explain`, `weft check` and the simulation run on it.
//!
//! Invariant: no clock, socket, task or chance. Equal facts give equal configs and reports.
//! Invariant: input never panics. What cannot be done is refused with a reason a person can act on.
//! Invariant: no wire type enters; [`config`] mirrors the contract in plain structs.

pub mod compile;
pub mod config;
pub mod inject;
pub mod lint;
pub mod model;
pub mod report;
pub mod session;
pub mod validate;

pub use compile::{Compiled, Compiler, Delta, build, compile};
pub use config::Config;
pub use model::{Kind, Model, Object, ObjectKey, Position, read};
pub use report::Report;
pub use session::{Published, Session};
pub use validate::validate;

#[cfg(test)]
mod fixtures;
