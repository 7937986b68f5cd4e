//! Hostile and malformed HTTP, byte for byte: what goes in, what comes back, what reaches the application.
//!
//! Each module is a kind of input; each row of a table is one rule. After every row the sidecar must
//! still serve a clean request, and no process may have died.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

#[path = "hostile/case.rs"]
mod case;
#[path = "hostile/fields.rs"]
mod fields;
#[path = "hostile/floods.rs"]
mod floods;
#[path = "hostile/framing.rs"]
mod framing;
#[path = "hostile/heads.rs"]
mod heads;
#[path = "hostile/http2.rs"]
mod http2;
#[path = "hostile/ports.rs"]
mod ports;
#[path = "hostile/responses.rs"]
mod responses;
