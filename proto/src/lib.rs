//! The contract between the planes: the messages of `weft/v1/*.proto`, their services, and the text
//! forms of names that both planes share.
//!
//! Invariant: no behaviour lives here. Cores never see these types: the control plane converts in
//! its *serve* step, the sidecar in its *adopt* step.

pub mod names;

/// Messages and services of `weft.v1`, generated from `proto/weft/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::too_many_lines)]
pub mod v1 {
    tonic::include_proto!("weft.v1");
}
