//! Opaque TCP load: one endless stream, new connections, one exchange.
//! Before this: `load`. After it: proxy A.
//!
//! Invariant: every byte of the stream is compared with what was sent.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Shared;
use crate::message::{ECHO, STREAM_COMMAND, stream_piece};

/// Connects, has one message echoed, and closes.
pub(super) async fn once(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&ECHO).await?;
    let mut answer = [0; 64];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == ECHO[..], "an echo with other bytes");
    Ok(())
}

/// As many connections as go, `at_once` at a time.
pub(super) async fn churn(address: SocketAddr, at_once: usize, tally: Shared) -> Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let tally = Rc::clone(&tally);
        tasks.spawn_local(async move {
            let mut bad_in_a_row = 0;
            while !tally.borrow().over() && bad_in_a_row < GIVE_UP {
                let begun = Instant::now();
                match once(address).await {
                    Ok(()) => {
                        bad_in_a_row = 0;
                        tally.borrow_mut().right(begun);
                    }
                    Err(error) => {
                        bad_in_a_row += 1;
                        tally.borrow_mut().wrong(&error);
                    }
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Reads one endless stream until the window ends.
pub(super) async fn bulk(address: SocketAddr, tally: Shared) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[STREAM_COMMAND]).await?;
    let mut piece = vec![0; 256 * 1024];
    let mut offset = 0;
    while !tally.borrow().over() {
        let read = stream.read(&mut piece).await?;
        ensure!(read > 0, "the stream ended");
        stream_piece(offset, &piece[..read])?;
        offset += read as u64;
        tally.borrow_mut().moved(read);
    }
    Ok(())
}

/// Bad connections in a row after which a task stops trying.
const GIVE_UP: usize = 20;
