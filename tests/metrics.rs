//! What the mesh counts: the reference page, every family on a real process, and a real Prometheus that
//! scrapes a mesh in which everything happens, answers every query of every board, and judges the alerts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "metrics/boards.rs"]
mod boards;
#[path = "metrics/busy.rs"]
mod busy;
#[path = "metrics/calls.rs"]
mod calls;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "metrics/reference.rs"]
mod reference;

use std::path::{Path, PathBuf};

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What a file of the repository says.
fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
