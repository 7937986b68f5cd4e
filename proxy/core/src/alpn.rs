//! The application protocols of Weft's own mutual TLS, as they stand in ALPN.
//!
//! Detect tells a hop between sidecars from the application's own TLS by these names; connect offers
//! them.
//!
//! Invariant: no name here is registered by anyone else, so application TLS is never taken for ours.

/// HTTP/1.1 between two sidecars.
pub const HTTP1: &[u8] = b"weft/h1";
/// HTTP/2 between two sidecars.
pub const HTTP2: &[u8] = b"weft/h2";
/// Opaque bytes between two sidecars.
pub const TCP: &[u8] = b"weft/tcp";

/// What a hop between two sidecars carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Opaque bytes.
    Tcp,
}

impl Hop {
    /// The hop that an ALPN name stands for; `None` when it is not ours.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2, Self::Tcp].into_iter().find(|hop| hop.alpn() == name)
    }

    /// The ALPN name.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => HTTP1,
            Self::Http2 => HTTP2,
            Self::Tcp => TCP,
        }
    }
}
