//! Netlink in its two halves: [`Writer`] lays out requests, [`Socket`] sends them and reads the
//! kernel's answers.
//!
//! Knows nothing of nftables; [`super::table`] speaks through it, and so may any other netlink family.
//!
//! Invariant: every length in a request is patched from what was written, never computed apart.
//! Invariant: no wait. The kernel answers a netlink request before `send` returns, so whatever it has
//! to say is already in the receive queue.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// This is a request. Source: Linux `include/uapi/linux/netlink.h`.
pub const REQUEST: u16 = 0x1;
/// The kernel shall answer even when all went well. Source: as above.
pub const ACK: u16 = 0x4;
/// Refuse if the object exists. Source: as above.
pub const EXCLUSIVE: u16 = 0x200;
/// Create the object if it does not exist. Source: as above.
pub const CREATE: u16 = 0x400;
/// Add at the end of the list. Source: as above.
pub const APPEND: u16 = 0x800;

/// Marks an attribute that holds attributes. Source: as above, `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// An acknowledgement or an error. Source: as above, `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// Length of a message's header and of the error code that follows it in an answer.
const HEADER: usize = 16;
/// One answer holds at most the refused request and its header; the largest request here is a set.
const RECEIVE_BYTES: usize = 128 * 1024;

/// Requests, one after another, in the kernel's layout.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one request: its family's own `header`, then the attributes that `body` writes.
    /// Gives the request's sequence number, by which answers name it.
    pub fn request(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        body(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        patch(&mut self.bytes, start, &length.to_ne_bytes());
        self.sequence
    }

    /// Everything written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The attributes of one request, or of one attribute that holds attributes.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Plain bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |bytes| bytes.extend_from_slice(value));
    }

    /// A text, with the NUL the kernel expects.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        });
    }

    /// A number in network order, as nftables wants all of its numbers.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Attributes inside an attribute.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NESTED, |bytes| body(&mut Attributes(bytes)));
    }

    /// Attributes inside an attribute that begins with a structure of its own (as a link's peer does).
    pub fn nest_after(&mut self, kind: u16, head: &[u8], body: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NESTED, |bytes| {
            bytes.extend_from_slice(head);
            pad(bytes);
            body(&mut Attributes(bytes));
        });
    }

    fn attribute(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        write(self.0);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        patch(self.0, start, &length.to_ne_bytes());
        pad(self.0);
    }
}

/// What the kernel said about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The request's sequence number.
    pub sequence: u32,
    /// Why it was refused; `None` when it was done.
    pub refused: Option<Errno>,
}

/// A socket to one netlink family of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket; `None` is the routing family.
    ///
    /// # Errors
    /// What the kernel gives: `EPROTONOSUPPORT` when it lacks the family.
    pub fn open(family: Option<Protocol>) -> Result<Self, Errno> {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family).map(Self)
    }

    /// Sends all requests in one datagram and gives every answer to them.
    ///
    /// # Errors
    /// What `send` or `recv` give. A request the kernel refused is an [`Answer`], not an error.
    pub fn transact(&self, requests: &Writer) -> Result<Vec<Answer>, Errno> {
        send(&self.0, requests.bytes(), SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0_u8; RECEIVE_BYTES];
        loop {
            match recv(&self.0, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => parse(buffer.get(..length).unwrap_or_default(), &mut answers),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(answers),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Reads acknowledgements and errors out of one datagram; anything else is skipped.
fn parse(mut datagram: &[u8], answers: &mut Vec<Answer>) {
    while let Some(header) = datagram.first_chunk::<{ HEADER + 4 }>() {
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, _, _, _, _, e0, e1, e2, e3] = *header;
        if u16::from_ne_bytes([k0, k1]) == ERROR {
            let code = i32::from_ne_bytes([e0, e1, e2, e3]);
            answers.push(Answer {
                sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
                refused: (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg())),
            });
        }
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let next = length.max(HEADER).checked_next_multiple_of(4).unwrap_or(usize::MAX);
        datagram = datagram.get(next..).unwrap_or_default();
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_cover_what_was_written_and_everything_is_aligned() {
        let mut writer = Writer::new();
        let first = writer.request(7, ACK, &[1, 0, 0, 0], |a| {
            a.text(1, "abc");
            a.nest(2, |a| a.bytes(3, &[9]));
        });
        assert_eq!(first, 1);
        let ne = |n: u16| n.to_ne_bytes();
        let mut expect = Vec::new();
        expect.extend_from_slice(&40_u32.to_ne_bytes());
        expect.extend_from_slice(&ne(7));
        expect.extend_from_slice(&ne(REQUEST | ACK));
        expect.extend_from_slice(&1_u32.to_ne_bytes());
        expect.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        expect.extend_from_slice(&ne(8));
        expect.extend_from_slice(&ne(1));
        expect.extend_from_slice(b"abc\0");
        expect.extend_from_slice(&ne(12));
        expect.extend_from_slice(&ne(2 | NESTED));
        expect.extend_from_slice(&ne(5));
        expect.extend_from_slice(&ne(3));
        expect.extend_from_slice(&[9, 0, 0, 0]);
        assert_eq!(writer.bytes(), expect);
    }

    #[test]
    fn answers_are_read_whatever_the_datagram_holds() {
        let mut datagram = Vec::new();
        for (kind, sequence, code) in [(ERROR, 1_u32, 0_i32), (99, 2, -1), (ERROR, 3, -17)] {
            datagram.extend_from_slice(&20_u32.to_ne_bytes());
            datagram.extend_from_slice(&kind.to_ne_bytes());
            datagram.extend_from_slice(&[0, 0]);
            datagram.extend_from_slice(&sequence.to_ne_bytes());
            datagram.extend_from_slice(&[0; 4]);
            datagram.extend_from_slice(&code.to_ne_bytes());
        }
        let mut answers = Vec::new();
        parse(&datagram, &mut answers);
        let expect =
            [Answer { sequence: 1, refused: None }, Answer { sequence: 3, refused: Some(Errno::EXIST) }];
        assert_eq!(answers, expect);
        for cut in 0..datagram.len() {
            parse(datagram.get(..cut).unwrap(), &mut Vec::new());
        }
        parse(&[0; 64], &mut Vec::new());
        parse(&[0xff; 64], &mut Vec::new());
    }
}
