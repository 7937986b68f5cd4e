//! Bytes and sockets of the Weft sidecar: listen, peek, TLS, gathered writes, relay, drain.
//!
//! Everything here runs on one thread per worker, inside a [`tokio::runtime::LocalRuntime`]:
//! state is shared by `Rc` and `Cell`, never by a lock.
//!
//! Invariant: this crate knows no policy; it moves bytes and says what it saw.

pub mod buffers;
pub mod drive;
pub mod exec;
pub mod gateway;
pub mod http;
pub mod listen;
pub mod peek;
pub mod redirect;
pub mod relay;
pub mod sock;
pub mod sweep;
pub mod taken;
pub mod tls;
