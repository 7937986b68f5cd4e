//! HTTP/2 by raw frames: what no library would send.
//!
//! Field sections are written without Huffman and without the dynamic table, so that each byte is what
//! the test says. Of answers only the status is read, which stands first.
//!
//! Invariant: SETTINGS and PING of the peer are acknowledged while reading, as a peaceful client does.

use std::net::SocketAddr;

use super::client::Client;

/// The client's first words.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types. Source: RFC 9113 §6.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const PRIORITY: u8 = 2;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
/// See [`DATA`].
pub const PING: u8 = 6;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
/// See [`DATA`].
pub const WINDOW_UPDATE: u8 = 8;
/// See [`DATA`].
pub const CONTINUATION: u8 = 9;

/// Flag: the stream ends (or: an acknowledgement).
pub const END_STREAM: u8 = 1;
/// Flag: the field section ends.
pub const END_HEADERS: u8 = 4;

/// Code: the peer makes too much noise. Source: RFC 9113 §7.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let four = self.payload.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map_or(u32::MAX, u32::from_be_bytes)
    }
}

/// How a stream or its connection came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer's head with this status.
    Status(u16),
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection was ended with this code.
    Goaway(u32),
    /// The connection ended without a word.
    Closed,
}

/// An HTTP/2 connection.
pub struct Http2 {
    /// The bytes below.
    pub client: Client,
}

impl Http2 {
    /// Connects, says the preface and empty SETTINGS.
    pub fn connect(to: SocketAddr) -> Self {
        let mut client = Client::connect(to);
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        Self { client }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.client.send(bytes)
    }

    /// The next frame, acknowledged where that is due; none at the end.
    pub fn receive(&mut self) -> Option<Frame> {
        let frame_read = read(&mut self.client)?;
        let (kind, ack) = (frame_read.kind, frame_read.flags & END_STREAM != 0);
        if (kind == SETTINGS || kind == PING) && !ack {
            self.client.send(&frame(
                kind,
                END_STREAM,
                0,
                if kind == PING { &frame_read.payload } else { &[] },
            ));
        }
        Some(frame_read)
    }

    /// How `stream` comes out.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            match self.receive() {
                None => return Outcome::Closed,
                Some(frame) if frame.kind == GOAWAY && frame.code() != 0 => {
                    return Outcome::Goaway(frame.code());
                }
                Some(frame) if frame.stream != stream => {}
                Some(frame) if frame.kind == HEADERS => return Outcome::Status(status(&frame)),
                Some(frame) if frame.kind == RST_STREAM => return Outcome::Reset(frame.code()),
                Some(_) => {}
            }
        }
    }

    /// Reads until the connection is ended, and gives the code it was ended with.
    pub fn ended(&mut self) -> Outcome {
        let mut last = Outcome::Closed;
        while let Some(frame) = self.receive() {
            if frame.kind == GOAWAY {
                last = Outcome::Goaway(frame.code());
            }
        }
        last
    }
}

/// Reads one frame.
pub fn read(client: &mut Client) -> Option<Frame> {
    let head = client.exactly(9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    let payload = client.exactly(length)?;
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field section, each field literal.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
    }
    bytes.extend_from_slice(text.as_bytes());
}

/// A request without a body, with these fields after or instead of the usual four.
pub fn get(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "clean")];
    all.extend_from_slice(more);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(&all))
}

/// The status of an answer's head: an entry of the static table, or the first literal.
pub fn status(head: &Frame) -> u16 {
    let at = usize::from(head.flags & 0x20 != 0) * 5;
    let bytes = head.payload.get(at..).unwrap_or_default();
    match bytes {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [_, length, rest @ ..] if length & 0x80 != 0 => huffman_digits(rest),
        [_, 3, rest @ ..] => String::from_utf8_lossy(&rest[..3]).parse().unwrap_or(0),
        _ => 0,
    }
}

/// Three digits in HPACK's Huffman code. Source: RFC 7541, Appendix B.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |from: usize, count: usize| {
        bits.get(from..from + count)
            .unwrap_or_default()
            .iter()
            .fold(0u16, |sum, bit| sum * 2 + u16::from(*bit))
    };
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let (digit, width) = match number(at, 5) {
            short @ 0..=2 => (short, 5),
            _ => (number(at, 6).wrapping_sub(0b01_1001).wrapping_add(3), 6),
        };
        value = value * 10 + digit;
        at += width;
    }
    value
}
