//! Looking at the mesh: a person's question goes to the sidecars concerned, and what they say comes back as
//! one answer.
//!
//! ```text
//! the API server's front proxy ─▶ front ─▶ review ┐            ┌─▶ a word on a sidecar's open stream
//! a program with a certificate ─▶ service: Ask ───┴─▶ hub ─────┤     └─▶ service: Answer ─▶ hub
//! another replica ─▶ service: Ask                              └─▶ replicas: Ask, at each other one
//!                                       readings ─▶ merge ─▶ edges
//! ```
//!
//! Invariant: nobody is answered who was not judged: by the API server, or by the identity of a certificate.
//! Invariant: only sidecars of the namespace that a question is for are asked.
//! Invariant: who does not answer in time is named, and nobody waits longer for it.

mod conduct;
pub mod front;
mod hub;
mod merge;
mod owners;
pub mod replicas;
mod service;

pub use hub::{Hub, Refused};
pub use service::{Looking, MESSAGE_LIMIT};
