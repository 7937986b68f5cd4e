//! The cluster's network, for what runs outside: closures on threads inside it, and one door to the API.
//!
//! Invariant: only a thread made for it enters; the caller's network stays what it was.
//! Invariant: the door listens on this machine's loopback and leads to the API server and nowhere else.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::settings::API_PORT;

/// The network namespace of a cluster's node.
#[derive(Debug)]
pub(super) struct Network(File);

impl Network {
    /// That of a process.
    pub(super) fn of(process: u32) -> io::Result<Self> {
        File::open(format!("/proc/{process}/ns/net")).map(Self)
    }

    /// Runs a closure on a thread inside; sockets it makes stay inside wherever they are used.
    pub(super) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> io::Result<T> {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(body())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Opens a port of this machine's loopback that leads to the API server, while this process lives.
    pub(super) fn open_door(self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let network = Arc::new(self);
        std::thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                let network = Arc::clone(&network);
                // A visit that fails is the visitor's to notice: the connection closes.
                std::thread::spawn(move || network.lead(&visitor));
            }
        });
        Ok(address)
    }

    fn lead(&self, visitor: &TcpStream) -> io::Result<()> {
        let server = self.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, API_PORT)))??;
        std::thread::scope(|scope| {
            scope.spawn(|| carry(visitor, &server));
            carry(&server, visitor);
        });
        Ok(())
    }
}

/// Copies until the one end is closed, then closes the other.
fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    // Either end may reset at any time, which ends both.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
