//! Responses get the same suspicion as requests.
//!
//! After the upstream's head was parsed, before anything of it goes downstream.
//!
//! Invariant: an answer that nobody asked for, or with two lengths, never reaches the downstream.

use http::{HeaderMap, StatusCode};

use super::fields::{self, Class, class};
use super::{Keep, Refusal};
use crate::reason::Reason;

/// What the request made possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// An upgrade was passed on: 101 is an answer.
    pub upgrade: bool,
}

/// Checks the head of an answer.
///
/// # Errors
/// A refusal that becomes a bad gateway; the upstream connection is closed.
pub fn check_response(status: StatusCode, headers: &HeaderMap, asked: Asked) -> Result<(), Refusal> {
    let refused = Err(Refusal::closing(Reason::UpstreamProtocol));
    let known = (100..600).contains(&status.as_u16());
    if !known || (status == StatusCode::SWITCHING_PROTOCOLS && !asked.upgrade) {
        return refused;
    }
    let (mut lengths, mut encodings) = (0u32, 0u32);
    for (name, value) in headers {
        match class(name) {
            Class::ContentLength => {
                lengths += 1;
                if value.is_empty() || !value.as_bytes().iter().all(u8::is_ascii_digit) {
                    return refused;
                }
            }
            Class::TransferEncoding => {
                encodings += 1;
                if !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return refused;
                }
            }
            Class::Host
            | Class::Connection
            | Class::Te
            | Class::Upgrade
            | Class::Hop
            | Class::Own
            | Class::EndToEnd => {}
        }
    }
    if lengths + encodings > 1 { refused } else { Ok(()) }
}

/// Takes out of an answer what must not travel on.
pub fn scrub_response(headers: &mut HeaderMap, keep: Keep) {
    let mut hop = false;
    let mut own = false;
    for name in headers.keys() {
        match class(name) {
            Class::Connection | Class::Te | Class::Upgrade | Class::Hop => hop = true,
            Class::Own => own = true,
            Class::Host | Class::ContentLength | Class::TransferEncoding | Class::EndToEnd => {}
        }
    }
    if hop {
        fields::drop_hop(headers, keep.upgrade);
        headers.remove(http::header::TE);
    }
    if own && !keep.own {
        fields::drop_own(headers);
    }
}
