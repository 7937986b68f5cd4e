//! HTTP over the gathering stream: serving one downstream connection, keeping connections to one
//! upstream, and bodies that tell when they end.
//!
//! Stands under *detect* (which chose the protocol), *connect* (which takes a link from a pool) and
//! *relay* (which moves the bodies). hyper speaks HTTP; what is here decides when its state lives,
//! when bytes leave, and when a connection is parked, drained or closed.
//!
//! Invariant: everything here runs on one thread; nothing is `Send`.
//! Invariant: no timer belongs to one request; the thread's tick asks connections to act.

pub mod body;
pub mod client;
pub mod frames;
pub mod interim;
pub mod live;
pub mod pool;
pub mod serve;
pub mod sever;

pub use body::{Body, Broken, Cut, Finish, Tally};
pub use client::{Failed, Http1Link, Http2Link, Upgrade};
pub use frames::{Flood, FrameLimits};
pub use live::{Ask, Conn, Live, LiveLimits};
pub use pool::{Busy, Lease, Pool, PoolLimits};
pub use serve::{EndOfSending, Ended, ServeLimits, serve_http1, serve_http2};
