//! A real Kubernetes for tests and for a person's own trials: etcd, API server, kubelet, containerd, CoreDNS.
//!
//! ```text
//! part      third-party programs, built once into a cache         ─┐
//! image     what a pod runs, written as an archive without a builder ├─▶ cluster ─▶ scenarios, `cargo dev`
//! mesh      Weft's own programs and images                         ─┘
//! ```
//!
//! `weft-dev` (`cargo dev`) is the program of this crate: a person calls its verbs, and a cluster starts
//! it again inside the namespaces that it lives in.
//!
//! Invariant: nothing of a cluster outlives the process that asked for it, however that process ends,
//! unless it was asked to stay.
//! Invariant: no registry is asked for anything; where an image's name holds one, it is read from the
//! manifest that wants it.

pub mod cluster;
pub mod conformance;
pub mod dev;
pub mod image;
mod look;
pub mod mesh;
pub mod part;
mod program;
pub mod scenario;
pub mod skip;
pub mod workload;
