//! What was sent of a request's body, for another attempt after the first was declined.
//!
//! Filled while the body streams past; read when an endpoint is left for another.
//!
//! Invariant: frames are held by reference, not copied; a body that is longer than the bound, or not
//! over yet, cannot be sent again.

use bytes::{Bytes, BytesMut};
use weft_proxy_net::http::Body;

use crate::exchange::RequestBody;

/// Bytes of one body that are held. Source: gRPC's unary calls and forms are far smaller; h2 holds as much
/// for a stream that waits.
const MOST: usize = 64 << 10;
/// Frames that are held. Source: a small body comes in one read.
const FRAMES: usize = 2;

/// The body of a request so far.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    frames: [Bytes; FRAMES],
    count: usize,
    size: usize,
    /// It is kept at all.
    wanted: bool,
    /// It has come to its end.
    whole: bool,
    /// There was too much of it.
    lost: bool,
}

impl Kept {
    /// The body may be needed again.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// A frame passed.
    pub(crate) fn frame(&mut self, data: &Bytes) {
        if !self.wanted || self.lost {
            return;
        }
        self.size = self.size.saturating_add(data.len());
        match self.frames.get_mut(self.count) {
            Some(free) if self.size <= MOST => {
                *free = data.clone();
                self.count += 1;
            }
            _ => self.lose(),
        }
    }

    /// It cannot be sent again.
    pub(crate) fn lose(&mut self) {
        self.frames = Default::default();
        self.lost = true;
    }

    /// It came to its end.
    pub(crate) fn end(&mut self) {
        self.whole = true;
    }

    /// The body once more, if all of it is here.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        if !self.wanted || !self.whole || self.lost {
            return None;
        }
        Some(match self.frames.get(..self.count).unwrap_or_default() {
            [] => Body::Empty,
            [one] => Body::Full(one.clone()),
            several => {
                let mut all = BytesMut::with_capacity(self.size);
                several.iter().for_each(|frame| all.extend_from_slice(frame));
                Body::Full(all.freeze())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(frames: &[&'static [u8]]) -> Kept {
        let mut kept = Kept::default();
        kept.want();
        frames.iter().for_each(|frame| kept.frame(&Bytes::from_static(frame)));
        kept
    }

    fn bytes(kept: &Kept) -> Option<Vec<u8>> {
        match kept.again()? {
            Body::Empty => Some(Vec::new()),
            Body::Full(bytes) => Some(bytes.to_vec()),
            Body::Stream(_) => None,
        }
    }

    #[test]
    fn a_short_body_is_there_again_once_it_is_over() {
        for frames in [&[][..], &[b"one".as_slice()], &[b"one".as_slice(), b" two"]] {
            let mut kept = kept(frames);
            assert_eq!(bytes(&kept), None, "not over yet");
            kept.end();
            assert_eq!(bytes(&kept), Some(frames.concat()));
            assert_eq!(bytes(&kept), Some(frames.concat()), "and a second time");
        }
    }

    #[test]
    fn a_body_that_is_too_long_or_was_not_wanted_is_gone() {
        static LONG: [u8; MOST + 1] = [0; MOST + 1];
        let mut unwanted = Kept::default();
        unwanted.frame(&Bytes::from_static(b"one"));
        for mut kept in [kept(&[&LONG]), kept(&[b"1", b"2", b"3"]), unwanted] {
            kept.end();
            assert_eq!(bytes(&kept), None);
        }
    }
}
