//! The sidecar: the rooms of the walk, and what serves them.

pub mod access_log;
pub mod init;
pub mod metrics;
pub mod record;
pub mod trace;
