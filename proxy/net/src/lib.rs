//! Bytes and sockets.

pub mod redirect;
