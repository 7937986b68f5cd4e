//! The one byte by which an accepting sidecar says whether its application took a connection, before any
//! byte of the application's: what makes a refused connection one that nobody has processed.
//!
//! Between identify and relay, on hops that agreed on it ([`Hop::TcpTold`](weft_proxy_core::Hop::TcpTold)).
//!
//! Invariant: exactly one byte is read; what follows it is the application's.

use crate::sock::Sock;
use std::future::poll_fn;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::task::ready;
use tokio::io::ReadBuf;
use weft_proxy_core::Taken;

/// Tells the peer.
///
/// # Errors
/// When the connection fails.
///
/// # Cancel safety
/// The peer may have been told or not.
pub async fn tell(sock: &mut Sock, taken: Taken) -> Result<()> {
    let byte = [taken as u8];
    poll_fn(|cx| {
        if ready!(sock.poll_write(cx, &[IoSlice::new(&byte)]))? == 0 {
            return Err(ErrorKind::WriteZero.into()).into();
        }
        sock.poll_flush_now(cx)
    })
    .await
}

/// Tells the peer that its connection was not taken, and ends it in good order, so that the byte arrives.
///
/// # Errors
/// When the connection fails.
///
/// # Cancel safety
/// As [`tell`].
pub async fn decline(sock: &mut Sock) -> Result<()> {
    tell(sock, Taken::No).await?;
    poll_fn(|cx| sock.poll_finish(cx)).await
}

/// What the peer says.
///
/// # Errors
/// When the connection ends or fails before, or the byte means nothing that is known.
///
/// # Cancel safety
/// The byte may have been read.
pub async fn hear(sock: &mut Sock) -> Result<Taken> {
    let mut byte = [0];
    let read = poll_fn(|cx| {
        let mut room = ReadBuf::new(&mut byte);
        ready!(sock.poll_read(cx, &mut room))?;
        Ok::<_, Error>(room.filled().len()).into()
    })
    .await?;
    if read == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Taken::of(byte[0]).ok_or_else(|| ErrorKind::InvalidData.into())
}
