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

/// The same, where the accepting side says first whether the application took the connection.
pub const TCP_TOLD: &[u8] = b"weft/tcp2";

/// What a hop between two sidecars carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Opaque bytes.
    Tcp,
    /// Opaque bytes after one byte of the accepting sidecar's: [`Taken`].
    TcpTold,
}

/// The first byte of [`Hop::TcpTold`]: whether the application took the connection. A peer that policy
/// refuses is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Taken {
    /// It did; all that follows is the application's.
    Yes = 0,
    /// It did not: nothing was passed on, and another endpoint may be asked.
    No = 1,
}

impl Taken {
    /// What the byte says; `None`: nothing that this version knows.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        [Self::Yes, Self::No].into_iter().find(|taken| *taken as u8 == byte)
    }
}

impl Hop {
    /// The hop that an ALPN name stands for; `None` when it is not ours.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2, Self::Tcp, Self::TcpTold].into_iter().find(|hop| hop.alpn() == name)
    }

    /// The hops offered where this one is wanted, best first: what an older sidecar knows is taken too.
    #[must_use]
    pub fn offers(self) -> &'static [Self] {
        match self {
            Self::Http1 => &[Self::Http1],
            Self::Http2 => &[Self::Http2],
            Self::Tcp => &[Self::Tcp],
            Self::TcpTold => &[Self::TcpTold, Self::Tcp],
        }
    }

    /// The ALPN name.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => HTTP1,
            Self::Http2 => HTTP2,
            Self::Tcp => TCP,
            Self::TcpTold => TCP_TOLD,
        }
    }
}
