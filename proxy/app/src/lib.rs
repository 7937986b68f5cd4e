//! The sidecar.

pub mod adopt;
pub mod backoff;
pub mod certify;
pub mod dial;
pub mod settings;
pub mod snapshots;

#[cfg(test)]
mod testing;
