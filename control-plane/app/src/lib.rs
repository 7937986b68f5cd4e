//! The control plane: takes facts from a folder of manifests or from a Kubernetes cluster, compiles them,
//! and serves every sidecar its configuration and its certificate.
//!
//! ```text
//! watch → index (read) → reload ┬ take: compile → publish → serve ‖ the sidecar's subscribe
//! authority, tokens → certify ‖ the sidecar's certify        tls → listen, under both
//! ```
//!
//! Invariant: decisions are the core's; here are files, sockets, clocks and keys.

pub mod admin;
pub mod app;
pub mod args;
pub mod authority;
pub mod certify;
pub mod clock;
pub mod csr;
pub mod encode;
pub mod files;
pub mod grpc;
pub mod index;
pub mod kubernetes;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod observe;
pub mod peer;
pub mod publish;
pub mod read;
pub mod reload;
pub mod run;
pub mod serve;
pub mod status;
pub mod take;
pub mod tls;
pub mod token_review;
pub mod tokens;
pub mod watch;
pub mod webhook;

#[cfg(test)]
mod testing;

pub use app::ControlPlane;
pub use args::{Args, Command, RunArgs};
pub use run::run;
