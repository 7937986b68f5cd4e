//! Both address families, pods with names of their own, and servers that are not HTTP and not ours: real
//! PostgreSQL, Redis and RabbitMQ.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

#[path = "dual_stack/family.rs"]
mod family;
#[path = "dual_stack/servers.rs"]
mod servers;

use weft_cluster::scenario::{Mesh, Wish};

/// The mesh of this file's scenarios; `None` where there can be none, which has been said.
fn mesh() -> Option<&'static Mesh> {
    Mesh::shared(Wish { dual_stack: true, ..Wish::default() })
}
