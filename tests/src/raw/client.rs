//! A client that sends any bytes and reads answers as strictly as it can.
//!
//! Invariant: an answer that is cut is told from one that is whole.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

/// A connection to the sidecar.
pub struct Client {
    stream: TcpStream,
    held: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, in lower case.
    pub head: String,
    /// Its body, as far as it came; chunks are joined.
    pub body: Vec<u8>,
    /// Whether it came to its end; without a length, the connection's orderly end.
    pub whole: bool,
}

impl Client {
    /// Connects.
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Reads and writes a connection there is.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// Sends bytes; a peer that has closed already is no error here.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Ends the own half.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Bytes of the next read; none at the end.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        if !self.held.is_empty() {
            return Some(std::mem::take(&mut self.held));
        }
        self.fill().then(|| std::mem::take(&mut self.held))
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.held.len() < length {
            if !self.fill() {
                return None;
            }
        }
        Some(self.held.drain(..length).collect())
    }

    /// Whether the peer closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.held.is_empty() && !self.fill()
    }

    /// Everything until the peer closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.held)
    }

    /// The next answer, interim ones too; none when the connection ends before its head does.
    pub fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = head_end(&self.held) {
                break end;
            }
            if !self.fill() {
                return None;
            }
        };
        let head: Vec<u8> = self.held.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer { status, head, body: Vec::new(), whole: true };
        self.body(&mut answer);
        Some(answer)
    }

    fn body(&mut self, answer: &mut Answer) {
        if answer.status < 200 || matches!(answer.status, 204 | 304) {
            return;
        }
        if answer.field("transfer-encoding").is_some() {
            loop {
                if let Some(end) = chunked_end(&self.held) {
                    let chunks: Vec<u8> = self.held.drain(..end).collect();
                    answer.body = dechunk(&chunks);
                    return;
                }
                if !self.fill() {
                    answer.body = std::mem::take(&mut self.held);
                    answer.whole = false;
                    return;
                }
            }
        }
        match answer.field("content-length").map(|length| length.parse::<usize>().unwrap()) {
            Some(length) => match self.exactly(length) {
                Some(body) => answer.body = body,
                None => {
                    answer.body = std::mem::take(&mut self.held);
                    answer.whole = false;
                }
            },
            None => answer.body = self.rest(),
        }
    }

    /// Reads more; gives whether anything came. An end without order is an end.
    fn fill(&mut self) -> bool {
        let mut room = [0; 64 * 1024];
        match self.stream.read(&mut room) {
            Ok(n) => {
                self.held.extend_from_slice(&room[..n]);
                n > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!(
                    "the sidecar neither answers nor closes; held: {:?}",
                    String::from_utf8_lossy(&self.held)
                )
            }
            Err(_) => false,
        }
    }
}

impl Answer {
    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }
}

/// Where a head ends.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Where a chunked body with its trailers ends.
pub(super) fn chunked_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size > 0 {
            at += size + 2;
            continue;
        }
        loop {
            let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
            at += line + 2;
            if line == 0 {
                return Some(at);
            }
        }
    }
}

fn dechunk(bytes: &[u8]) -> Vec<u8> {
    let (mut at, mut body) = (0, Vec::new());
    while let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap_or(0);
        at += line + 2;
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
    }
    body
}
