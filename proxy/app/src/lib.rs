//! The sidecar.

pub mod settings;

#[cfg(test)]
mod testing;
