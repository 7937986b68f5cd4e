//! TLS 1.3 between sidecars, on rustls' unbuffered interface: identify (inbound), connect (outbound).
//!
//! `engine` turns rustls' state machine, `stream` moves its bytes, `identity` holds certificate, key and
//! roots, `verify` and `peer` say what a peer must prove, `sessions` what may be resumed, `handshake` puts
//! them together.
//!
//! Invariant: nothing outside this folder names rustls' unbuffered interface.

mod engine;
mod handshake;
mod identity;
mod peer;
mod sessions;
mod stream;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

pub use handshake::{Dialer, Peer, TlsError, accept};
pub use identity::{BadIdentity, Generation, TlsIdentity, provider};
pub use peer::{BadPeer, peer_identity, validity};
pub use stream::Tls;
pub use verify::ExactServer;
