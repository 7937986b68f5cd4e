//! `cargo dev`: what a developer does around the code.
fn main() {}
