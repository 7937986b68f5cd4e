//! Reads the first flight of a TLS connection as it crossed the wire: version, cipher, key exchange, ALPN, resumption.
//! Before this: `tap` recorded it. After it: `check` judges it.
//!
//! Invariant: anything that is not a ClientHello and a TLS 1.3 ServerHello is an error, never a guess.

use anyhow::{Context as _, Result, bail, ensure};

/// What client and server agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hellos {
    /// Cipher suite, by name where it is known.
    pub(crate) cipher: String,
    /// Key exchange group, by name where it is known.
    pub(crate) group: String,
    /// Protocols that the client offered.
    pub(crate) alpn: Vec<String>,
    /// Whether the server took up an earlier session.
    pub(crate) resumed: bool,
}

/// Reads both hellos.
///
/// # Errors
/// The bytes are no TLS 1.3 handshake, or end early.
pub(crate) fn read(up: &[u8], down: &[u8]) -> Result<Hellos> {
    let client = hello(up, CLIENT_HELLO).context("from A")?;
    let server = hello(down, SERVER_HELLO).context("from B")?;
    let version = server.extension(SUPPORTED_VERSIONS).context("B chose no version: older than TLS 1.3")?;
    ensure!(version == TLS13, "B chose version {version:02x?}");
    let mut group = server.extension(KEY_SHARE).unwrap_or_default();
    let alpn = client.extension(ALPN).map(names).transpose()?.unwrap_or_default();
    Ok(Hellos {
        cipher: cipher_name(server.cipher),
        group: group_name(group.number(2).unwrap_or(0)),
        alpn,
        resumed: server.extension(PRE_SHARED_KEY).is_some(),
    })
}

struct Hello<'a> {
    cipher: u16,
    extensions: Vec<(u16, &'a [u8])>,
}

impl<'a> Hello<'a> {
    fn extension(&self, wanted: u16) -> Option<&'a [u8]> {
        self.extensions.iter().find(|(kind, _)| *kind == wanted).map(|(_, body)| *body)
    }
}

fn hello(record: &[u8], kind: u8) -> Result<Hello<'_>> {
    let mut rest = record;
    ensure!(rest.number(1)? == HANDSHAKE, "the first byte is not a TLS handshake record");
    rest.number(2)?;
    let mut rest = rest.block(2)?;
    ensure!(rest.number(1)? == u64::from(kind), "the handshake message is another one");
    let mut rest = rest.block(3)?;
    rest.take(2 + 32)?;
    rest.block(1)?;
    let cipher = if kind == CLIENT_HELLO {
        rest.block(2)?;
        rest.block(1)?;
        0
    } else {
        let cipher = rest.number(2)?;
        rest.number(1)?;
        cipher
    };
    let mut rest = rest.block(2)?;
    let mut extensions = Vec::new();
    while !rest.is_empty() {
        let kind = u16::try_from(rest.number(2)?)?;
        extensions.push((kind, rest.block(2)?));
    }
    Ok(Hello { cipher: u16::try_from(cipher)?, extensions })
}

fn names(mut body: &[u8]) -> Result<Vec<String>> {
    let mut list = body.block(2)?;
    let mut names = Vec::new();
    while !list.is_empty() {
        names.push(String::from_utf8_lossy(list.block(1)?).into_owned());
    }
    Ok(names)
}

/// Reading big-endian numbers and length-prefixed blocks off the front of a slice.
trait Front<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]>;
    fn number(&mut self, width: usize) -> Result<u64>;
    fn block(&mut self, width: usize) -> Result<&'a [u8]>;
}

impl<'a> Front<'a> for &'a [u8] {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        if self.len() < length {
            bail!("the record ends early");
        }
        let (taken, rest) = self.split_at(length);
        *self = rest;
        Ok(taken)
    }

    fn number(&mut self, width: usize) -> Result<u64> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn block(&mut self, width: usize) -> Result<&'a [u8]> {
        let length = self.number(width)?;
        self.take(usize::try_from(length)?)
    }
}

/// Source of the names: RFC 8446 B.4 and the IANA registry of supported groups.
fn cipher_name(number: u16) -> String {
    match number {
        0x1301 => "AES-128-GCM".into(),
        0x1302 => "AES-256-GCM".into(),
        0x1303 => "ChaCha20-Poly1305".into(),
        other => format!("cipher {other:#06x}"),
    }
}

fn group_name(number: u64) -> String {
    match number {
        0x11ec => "X25519MLKEM768".into(),
        0x001d => "X25519".into(),
        0x0017 => "P-256".into(),
        other => format!("group {other:#06x}"),
    }
}

const HANDSHAKE: u64 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
const TLS13: &[u8] = &[3, 4];

#[cfg(test)]
mod tests {
    use super::*;

    fn block(width: usize, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u64).to_be_bytes()[8 - width..].to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    fn record(kind: u8, middle: &[u8], extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (number, body) in extensions {
            list.extend_from_slice(&number.to_be_bytes());
            list.extend_from_slice(&block(2, body));
        }
        let message = [&[3, 3][..], &[7; 32], &[0], middle, &block(2, &list)].concat();
        let handshake = [&[kind][..], &block(3, &message)].concat();
        [&[22, 3, 1][..], &block(2, &handshake)].concat()
    }

    fn client() -> Vec<u8> {
        record(CLIENT_HELLO, &[0, 2, 0x13, 1, 1, 0], &[(ALPN, &[0, 3, 2, b'h', b'2'])])
    }

    #[test]
    fn both_hellos_are_read() {
        let share = [&[0x11, 0xec][..], &block(2, &[1; 40])].concat();
        let server =
            record(SERVER_HELLO, &[0x13, 1, 0], &[(SUPPORTED_VERSIONS, &[3, 4]), (KEY_SHARE, &share)]);
        let hellos = read(&client(), &server).unwrap();
        assert_eq!(hellos.cipher, "AES-128-GCM");
        assert_eq!(hellos.group, "X25519MLKEM768");
        assert_eq!(hellos.alpn, ["h2"]);
        assert!(!hellos.resumed);
    }

    #[test]
    fn older_versions_clear_text_and_cut_records_are_errors() {
        let old = record(SERVER_HELLO, &[0xc0, 0x2f, 0], &[]);
        assert!(read(&client(), &old).is_err(), "TLS 1.2 passes");
        assert!(read(b"GET / HTTP/1.1\r\n", &old).is_err(), "clear text passes");
        let server = record(SERVER_HELLO, &[0x13, 1, 0], &[(SUPPORTED_VERSIONS, &[3, 4])]);
        for cut in 0..server.len() {
            assert!(read(&client(), &server[..cut]).is_err(), "cut at {cut}");
        }
    }
}
