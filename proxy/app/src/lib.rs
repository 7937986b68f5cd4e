//! The sidecar.

pub mod access_log;
pub mod metrics;
pub mod record;
pub mod trace;
