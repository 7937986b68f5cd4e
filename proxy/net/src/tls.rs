//! TLS 1.3 between sidecars, on rustls' unbuffered interface.

mod engine;
mod stream;

pub use stream::Tls;
