//! The sidecar.

pub mod access_log;
pub mod adopt;
pub mod backoff;
pub mod certify;
pub mod dial;
pub mod hold;
pub mod lookup;
pub mod metrics;
pub mod record;
pub mod settings;
pub mod snapshots;
pub mod subscribe;
pub mod trace;

#[cfg(test)]
mod testing;
