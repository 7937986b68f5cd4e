//! The whole model → everything that any sidecar may ask for, and what became of each object.
//!
//! Where it stands: *compile*, the middle of the configuration's walk: `watch → index → compile →
//! publish → serve`. [`build`] reads a model whole; [`Compiler`] keeps what it compiled and does again
//! only what a change touches. Both take the same steps.
//!
//! ```text
//! mesh ─ world ─┬─ route  (rules, backends, parents) ─ slots ─→ Outbound
//!               ├─ traffic ─────────────────────────────────→ Backend
//!               ├─ authorization, tls ──────────────────────→ Inbound, Authorization
//!               └─ services and pods ───────────────────────→ Address
//! ```
//!
//! Invariant: pure, deterministic, sorted: equal models give equal configs and reports.
//! Invariant: a service port that any resource names has its Backend here.

mod address;
mod compiler;
mod inbound;
mod index;
mod kinds;
mod mesh;
mod outbound;
mod policy;
mod protocol;
mod route;
mod slot;
mod state;
mod step;
mod target;
mod telemetry;
mod traffic;
mod work;
mod world;

pub use self::{compiler::Compiler, state::Delta};
use crate::{
    config::{self, Config},
    model::Model,
    report::Report,
};

/// A config and what became of the objects that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// What sidecars are told.
    pub config: Config,
    /// What users are told.
    pub report: Report,
}

/// What sidecars are told.
pub fn compile(model: &Model) -> Config {
    build(model).config
}

/// The mesh's settings of a model, with every default filled in.
pub fn settings(model: &Model) -> config::Mesh {
    mesh::compile(model, &mut Report::default()).settings
}

/// What sidecars are told and what users are told.
pub fn build(model: &Model) -> Compiled {
    let mut compiler = Compiler::new(model.clone());
    compiler.compile();
    let (config, report) = compiler.into_parts();
    Compiled { config, report }
}

#[cfg(test)]
mod tests;
