//! What a user does with a mesh, on real pods: one cluster and one installation for all of these scenarios,
//! a namespace for each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

#[path = "mesh/authorization.rs"]
mod authorization;
#[path = "mesh/first.rs"]
mod first;
#[path = "mesh/identity.rs"]
mod identity;
#[path = "mesh/injection.rs"]
mod injection;
#[path = "mesh/life.rs"]
mod life;
#[path = "mesh/observe.rs"]
mod observe;
#[path = "mesh/reach.rs"]
mod reach;
#[path = "mesh/routes.rs"]
mod routes;
#[path = "mesh/status.rs"]
mod status;
#[path = "mesh/tracing.rs"]
mod tracing;

use weft_cluster::scenario::{Mesh, Wish};

/// The mesh of this file's scenarios; `None` where there can be none, which has been said.
fn mesh() -> Option<&'static Mesh> {
    Mesh::shared(Wish::default())
}
