//! The sidecar.

pub mod access_log;
pub mod admin;
pub mod log;
pub mod metrics;
pub mod record;
pub mod trace;
