//! The messages of each shape, and the check that an answer is the right one, byte for byte.
//! Used by: `load` (client side), `backend` (server side), `check`.
//!
//! Invariant: an answer is right only if status, length and every byte of the body are; no shortcut by length alone.

use std::fmt::Write as _;
use std::sync::LazyLock;

use anyhow::{Result, bail, ensure};
use memchr::memmem;

/// The GET of 102 bytes.
pub(crate) static HTTP_REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut text =
        format!("GET {HTTP_PATH} HTTP/1.1\r\nhost: server.bench\r\nuser-agent: weft-bench\r\nx-pad: ");
    let end = "\r\n\r\n";
    while text.len() + end.len() < HTTP_REQUEST_BYTES {
        text.push('p');
    }
    (text + end).into_bytes()
});

/// The answer to it, head and 1,024 bytes of body.
pub(crate) static HTTP_ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut head = String::from("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n");
    let _ = write!(head, "content-length: {HTTP_BODY_BYTES}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.extend_from_slice(&HTTP_BODY);
    answer
});

/// The body of the answer: letters, so that it would be seen if it crossed in the clear.
pub(crate) static HTTP_BODY: LazyLock<Vec<u8>> = LazyLock::new(|| letters(HTTP_BODY_BYTES));

/// A gRPC message of 105 bytes with its frame.
pub(crate) static GRPC_REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| framed(100));

/// A gRPC message of 1,029 bytes with its frame.
pub(crate) static GRPC_ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| framed(1024));

/// What a client of the opaque service sends to have it sent back: no byte of it looks like HTTP or TLS.
pub(crate) static ECHO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut text = letters(64);
    text[0] = ECHO_COMMAND;
    text
});

/// One block of the endless stream; its first eight bytes are replaced by its number.
pub(crate) static BLOCK: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..BLOCK_BYTES).map(|at| (at.wrapping_mul(31) % 251) as u8).collect());

/// The length of the HTTP answer at the start of `bytes`, once it is whole.
///
/// # Errors
/// The answer is not the one expected.
pub(crate) fn http_answer(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        ensure!(bytes.len() < HEAD_LIMIT, "a head of more than {HEAD_LIMIT} bytes");
        return Ok(None);
    };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    if answer.parse(&bytes[..head])?.is_partial() {
        bail!("a head that ends early");
    }
    let status = answer.code.unwrap_or_default();
    ensure!(status == 200, "status {status}");
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(length) = length else { bail!("an answer without content-length") };
    ensure!(length.value == HTTP_BODY_BYTES.to_string().as_bytes(), "a content-length of {:?}", length.value);
    let Some(body) = bytes.get(head..head + HTTP_BODY_BYTES) else { return Ok(None) };
    ensure!(body == &HTTP_BODY[..], "a body with other bytes");
    Ok(Some(head + HTTP_BODY_BYTES))
}

/// Checks a piece of the endless stream that starts at `offset`.
///
/// # Errors
/// A byte is not the one that was sent there.
pub(crate) fn stream_piece(offset: u64, mut piece: &[u8]) -> Result<()> {
    let mut offset = offset;
    while !piece.is_empty() {
        let number = (offset / BLOCK_BYTES as u64).to_le_bytes();
        let at = (offset % BLOCK_BYTES as u64) as usize;
        let expected = if at < number.len() { &number[at..] } else { &BLOCK[at..] };
        let length = expected.len().min(piece.len());
        let (now, rest) = piece.split_at(length);
        ensure!(now == &expected[..length], "other bytes than sent near offset {offset}");
        offset += length as u64;
        piece = rest;
    }
    Ok(())
}

fn letters(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at.wrapping_mul(7) % 26) as u8).collect()
}

fn framed(length: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(length as u32).to_be_bytes());
    message.extend_from_slice(&letters(length));
    message
}

/// Path of the HTTP request.
pub(crate) const HTTP_PATH: &str = "/bench/item";
/// Path of the gRPC call.
pub(crate) const GRPC_PATH: &str = "/bench.Echo/Say";
/// First byte of a message that is to be echoed.
pub(crate) const ECHO_COMMAND: u8 = b'+';
/// First byte that asks for the endless stream.
pub(crate) const STREAM_COMMAND: u8 = b'*';
/// Bytes of one block of the stream.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;
const HTTP_REQUEST_BYTES: usize = 102;
const HTTP_BODY_BYTES: usize = 1024;
const HEAD_LIMIT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_sizes_that_the_method_names() {
        assert_eq!(HTTP_REQUEST.len(), 102);
        assert_eq!(HTTP_BODY.len(), 1024);
        assert_eq!(GRPC_REQUEST.len(), 105);
        assert_eq!(GRPC_ANSWER.len(), 1029);
    }

    #[test]
    fn a_right_answer_is_taken_only_when_whole() {
        let answer = &HTTP_ANSWER[..];
        for cut in 0..answer.len() {
            assert_eq!(http_answer(&answer[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert_eq!(http_answer(answer).unwrap(), Some(answer.len()));
    }

    #[test]
    fn a_wrong_answer_is_refused() {
        let mut other = HTTP_ANSWER.clone();
        *other.last_mut().unwrap() = b'!';
        assert!(http_answer(&other).is_err());
        assert!(http_answer(b"HTTP/1.1 503 x\r\ncontent-length: 1024\r\n\r\n").is_err());
        assert!(http_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").is_err());
    }

    #[test]
    fn the_stream_is_checked_across_any_cut() {
        let mut sent = Vec::new();
        for number in 0..3u64 {
            sent.extend_from_slice(&number.to_le_bytes());
            sent.extend_from_slice(&BLOCK[8..]);
        }
        for size in [1, 5, 8, 4096, BLOCK_BYTES - 3, BLOCK_BYTES * 2] {
            let mut offset = 0;
            for piece in sent.chunks(size) {
                stream_piece(offset, piece).unwrap();
                offset += piece.len() as u64;
            }
        }
        sent[BLOCK_BYTES + 2] ^= 1;
        assert!(stream_piece(0, &sent).is_err(), "a wrong block number passes");
    }
}
