//! What Weft's tests share: the places they run in and the parts they are made of.
//!
//! Invariant: nothing here is shipped; the crate may see every other one and none may see it.

pub mod collector;
pub mod echo;
pub mod mesh;
pub mod netns;
pub mod raw;
pub mod sim;
pub mod tidy;
