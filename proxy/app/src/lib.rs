//! The sidecar.

pub mod adopt;
pub mod backoff;
pub mod settings;

#[cfg(test)]
mod testing;
