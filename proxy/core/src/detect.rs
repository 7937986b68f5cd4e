//! What a connection speaks, told from its first bytes.
//!
//! After identify, before authorize: the room peeks, asks, and peeks again while the answer is
//! [`Detection::More`] and its limits allow.
//!
//! Invariant: what is not certainly HTTP or TLS is opaque and passed on; a prefix never changes its
//! mind: once an answer is not `More`, more bytes give the same answer.

use crate::spec::Protocol;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detection {
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 preface.
    Http2,
    /// A TLS ClientHello.
    Tls,
    /// Anything else.
    Opaque,
    /// Too short to tell.
    More,
}

/// What a connection is taken for, where its port declares a protocol and its first bytes were seen.
///
/// A declaration is believed, except that HTTP/2 with prior knowledge is recognised on an HTTP port, and the
/// application's TLS; what is no HTTP there is refused with an answer, not with a reset.
#[must_use]
pub fn taken_for(declared: Protocol, seen: Detection) -> Detection {
    match (declared, seen) {
        (Protocol::Opaque, _) => Detection::Opaque,
        (Protocol::Tls, _) => Detection::Tls,
        (_, Detection::Http1 | Detection::Http2 | Detection::Tls) => seen,
        (Protocol::Http1 | Protocol::Http2, Detection::Opaque | Detection::More) => Detection::Http1,
        (Protocol::Detect, Detection::Opaque | Detection::More) => Detection::Opaque,
    }
}

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// Server name, when one is sent.
    pub sni: Option<&'a str>,
    alpn: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// The offered application protocols, in order.
    pub fn alpn(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut list = Reader(self.alpn);
        std::iter::from_fn(move || list.vector8())
    }
}

/// Tells the protocol from the first bytes.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detection {
    match bytes.first() {
        None => Detection::More,
        Some(&HANDSHAKE) => tls(bytes),
        Some(_) if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) => Detection::More,
        Some(_) if bytes.starts_with(PREFACE) => Detection::Http2,
        Some(_) => http1(bytes),
    }
}

/// Reads the ClientHello at the start of `bytes`: `None` until its record is there whole (see
/// [`hello_length`]), and for good when it is none or spans records, which Weft's own never does.
#[must_use]
pub fn client_hello(bytes: &[u8]) -> Option<ClientHello<'_>> {
    let mut record = Reader(bytes);
    record.skip(3)?;
    let mut message = Reader(record.vector16()?);
    if message.byte()? != CLIENT_HELLO {
        return None;
    }
    let mut body = Reader(message.vector24()?);
    body.skip(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let value = extensions.vector16()?;
        match kind {
            SERVER_NAME => hello.sni = server_name(value),
            ALPN => hello.alpn = Reader(value).vector16()?,
            _ => {}
        }
    }
    Some(hello)
}

/// How many bytes of a ClientHello record are to be peeked in all; `None` until the header is there.
#[must_use]
pub fn hello_length(bytes: &[u8]) -> Option<usize> {
    let mut record = Reader(bytes);
    record.skip(3)?;
    Some(usize::from(record.number16()?) + RECORD_HEADER)
}

fn server_name(value: &[u8]) -> Option<&str> {
    let mut list = Reader(Reader(value).vector16()?);
    let kind = list.byte()?;
    let name = list.vector16()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (kind == HOST_NAME && !name.is_empty() && name.len() <= MAX_NAME && name.iter().all(plain))
        .then(|| std::str::from_utf8(name).ok())
        .flatten()
}

/// A handshake record that begins with a ClientHello.
fn tls(bytes: &[u8]) -> Detection {
    let expected: [fn(u8) -> bool; 6] = [
        |content| content == HANDSHAKE,
        |major| major == 3,
        |minor| minor <= 4,
        |length| length <= (MAX_HELLO >> 8) as u8,
        |_| true,
        |message| message == CLIENT_HELLO,
    ];
    let fits = bytes.iter().zip(expected).all(|(&byte, fits)| fits(byte));
    match (fits, bytes.len() >= expected.len()) {
        (false, _) => Detection::Opaque,
        (true, false) => Detection::More,
        (true, true) => Detection::Tls,
    }
}

/// A request line: a known method, or another token in capitals with a target behind it.
fn http1(bytes: &[u8]) -> Detection {
    let seen = &bytes[..bytes.len().min(MAX_METHOD + 1)];
    let Some(blank) = memchr::memchr(b' ', seen) else {
        let could_be = seen.len() <= MAX_METHOD && seen.iter().copied().all(is_method_byte);
        return if could_be { Detection::More } else { Detection::Opaque };
    };
    let (method, target) = (&seen[..blank], bytes.get(blank + 1).copied());
    if method.is_empty() || !method.iter().copied().all(is_method_byte) {
        return Detection::Opaque;
    }
    let known = METHODS.contains(&method);
    match target {
        None => Detection::More,
        // Methods nobody listed still need an origin-form target and a version behind it: `EHLO host`
        // and `SELECT 1` are not HTTP.
        Some(b'/') if known => Detection::Http1,
        Some(b'/') => versioned(bytes),
        Some(byte) if known && (byte.is_ascii_alphanumeric() || byte == b'[') => {
            absolute(&bytes[blank + 1..], method)
        }
        // A known method before nonsense: an HTTP client that wants a 400, not a stranger's protocol.
        Some(_) if known => versioned(bytes),
        Some(_) => Detection::Opaque,
    }
}

/// Absolute form, or CONNECT's authority form.
fn absolute(target: &[u8], method: &[u8]) -> Detection {
    if method == b"CONNECT" {
        return Detection::Http1;
    }
    let scheme = |scheme: &[u8]| {
        let shared = target.len().min(scheme.len());
        target[..shared].eq_ignore_ascii_case(&scheme[..shared]).then_some(target.len() >= scheme.len())
    };
    match (scheme(b"http://"), scheme(b"https://")) {
        (Some(true), _) | (_, Some(true)) => Detection::Http1,
        (Some(false), _) | (_, Some(false)) => Detection::More,
        (None, None) => versioned(target),
    }
}

/// Whether the first line ends with an HTTP/1 version.
fn versioned(bytes: &[u8]) -> Detection {
    let seen = &bytes[..bytes.len().min(MAX_LINE)];
    let end = memchr::memchr(b'\n', seen);
    let line = &seen[..end.unwrap_or(seen.len())];
    if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\r' && byte != b'\t') {
        return Detection::Opaque;
    }
    match end {
        Some(_) if ends_with_version(line) => Detection::Http1,
        Some(_) => Detection::Opaque,
        None if bytes.len() >= MAX_LINE => Detection::Opaque,
        None => Detection::More,
    }
}

fn ends_with_version(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.split_last() {
        Some((digit, rest)) => digit.is_ascii_digit() && rest.ends_with(VERSION),
        None => false,
    }
}

fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

/// A cursor that ends instead of reading past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }

    fn vector24(&mut self) -> Option<&'a [u8]> {
        let high = self.byte()?;
        let low = self.number16()?;
        self.take(usize::from(high) << 16 | usize::from(low))
    }
}

/// Source: RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const VERSION: &[u8] = b" HTTP/1.";
/// Source: RFC 9110 §9.3, RFC 5789, and WebDAV's (RFC 4918, 3253, 3744, 5323).
const METHODS: [&[u8]; 24] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"ACL",
    b"CHECKOUT",
    b"MERGE",
    b"PURGE",
    b"QUERY",
    b"MKCALENDAR",
];
/// Longer than any registered method (`BASELINE-CONTROL`, 16; `UPDATEREDIRECTREF`, 17). Source: IANA's
/// HTTP method registry.
const MAX_METHOD: usize = 24;
/// How far the version of an unusual request line is looked for.
const MAX_LINE: usize = 2048;
/// Source: RFC 8446 §5.1, content type handshake.
const HANDSHAKE: u8 = 0x16;
/// Source: RFC 8446 §4, handshake type client_hello.
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
/// Source: RFC 8446 §5.1, a record holds at most 2^14 bytes.
pub const MAX_HELLO: usize = 1 << 14;
/// Source: RFC 6066 §3.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Source: RFC 7301 §3.1.
const ALPN: u16 = 16;
/// Source: RFC 1035 §2.3.4.
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests;
