//! The sidecar.

pub mod init;
