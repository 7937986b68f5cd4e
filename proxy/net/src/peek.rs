//! A look at the first bytes of a plaintext connection, and at which side speaks first.
//!
//! Between accept and detect. Bytes are read into the [`Sock`] and given back: whoever reads next, reads
//! them again.
//!
//! Invariant: at most the given number of bytes is looked at, and nothing is lost when the look is given up.

use crate::buffers::{Area, with_scratch};
use crate::sock::Sock;
use std::future::poll_fn;
use std::io::Result;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// What the examiner says about the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T> {
    /// Too few to tell.
    More,
    /// Told.
    Done(T),
}

/// Why the look ended without an answer of the examiner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<T> {
    /// The examiner's answer.
    Told(T),
    /// The peer closed its side first; what came is in the stream.
    Ended,
    /// The limit was reached and the examiner still asked for more.
    Full,
}

/// Shows `examine` the first bytes, at most `limit`, each time more have come. Wrap it in
/// [`crate::sweep::deadline`]: a silent peer would hold it forever.
///
/// # Errors
/// When the connection fails.
///
/// # Cancel safety
/// What was read stays in `sock`.
pub async fn peek<T>(
    sock: &mut Sock,
    limit: usize,
    mut examine: impl FnMut(&[u8]) -> Step<T>,
) -> Result<Seen<T>> {
    poll_fn(|cx| {
        loop {
            let bytes = sock.unread_bytes();
            let bytes = bytes.get(..limit).unwrap_or(bytes);
            if !bytes.is_empty()
                && let Step::Done(told) = examine(bytes)
            {
                return Poll::Ready(Ok(Seen::Told(told)));
            }
            if bytes.len() >= limit {
                return Poll::Ready(Ok(Seen::Full));
            }
            let room = limit - bytes.len();
            if ready!(poll_more(cx, sock, room))? == 0 {
                return Poll::Ready(Ok(Seen::Ended));
            }
        }
    })
    .await
}

/// Reads at most `room` more bytes behind those that are unread.
fn poll_more(cx: &mut Context<'_>, sock: &mut Sock, room: usize) -> Poll<Result<usize>> {
    with_scratch(Area::Plain, |area| {
        let most = room.min(area.len());
        let mut buf = ReadBuf::new(area.get_mut(..most).unwrap_or_default());
        ready!(sock.poll_read_behind(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    })
}

/// A side of a pair of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// Waits until either side has bytes (or has ended): how a protocol shows whose server speaks first.
/// When both have, the first one counts.
///
/// A session ticket is no word of the application's: what TLS says for itself is read past.
///
/// # Cancel safety
/// What was looked at is still unread.
pub async fn first_speaker(first: &mut Sock, second: &mut Sock) -> Side {
    poll_fn(|cx| {
        if poll_spoken(cx, first).is_ready() {
            return Poll::Ready(Side::First);
        }
        poll_spoken(cx, second).map(|()| Side::Second)
    })
    .await
}

/// Ready when there is a byte of the application's, an end or an error.
fn poll_spoken(cx: &mut Context<'_>, sock: &mut Sock) -> Poll<()> {
    if !sock.unread_bytes().is_empty() {
        return Poll::Ready(());
    }
    // How it ended is told to whoever reads next.
    poll_more(cx, sock, FIRST_WORDS).map(|_| ())
}

/// Bytes read of a side that speaks first. Source: a greeting is a line or a packet of some hundred bytes;
/// the rest stays where it is.
const FIRST_WORDS: usize = 512;

#[cfg(test)]
mod tests;
