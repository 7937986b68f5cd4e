//! Room 1, **accept**: a listener in, connections with their original destination out.
//!
//! First of the walk. A redirected connection's destination is read from its socket; an explicit
//! listener stands for a destination of its own.
//!
//! Invariant: connections are counted against a limit before anything is spent on them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use weft_proxy_core::Name;
use weft_proxy_net::listen;

/// What a listener stands for.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// Redirected connections of the application.
    Outbound,
    /// Redirected connections to the application.
    Inbound,
    /// One service port.
    Service(Name),
    /// One port of the application.
    Application { address: SocketAddr, port: u16 },
}

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) tcp: TcpStream,
    pub(crate) client: SocketAddr,
    /// Where the client wanted to go; `None` behind an explicit listener, and for who calls a listener for
    /// redirected connections itself.
    pub(crate) original: Option<SocketAddr>,
    pub(crate) door: Door,
}

impl Accepted {
    /// It came to a listener for redirected connections, and not by redirection.
    pub(crate) fn is_astray(&self) -> bool {
        matches!(self.door, Door::Outbound | Door::Inbound) && self.original.is_none()
    }
}

/// Connections of one worker, counted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Places(Rc<Cell<usize>>);

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Place(Rc<Cell<usize>>);

impl Places {
    /// A place, while fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<Place> {
        let taken = self.0.get();
        if taken >= limit {
            return None;
        }
        self.0.set(taken + 1);
        Some(Place(self.0.clone()))
    }

    /// Places taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Gives an accepted connection its destination.
pub(crate) fn accept(tcp: TcpStream, client: SocketAddr, door: &Door) -> Accepted {
    let original = match door {
        Door::Outbound | Door::Inbound => listen::original_dst(&tcp),
        Door::Service(_) | Door::Application { .. } => None,
    };
    Accepted { tcp, client, original, door: door.clone() }
}
