//! gRPC-shaped HTTP/2 load: closed loop, open loop, one call.
//! Before this: `load`. After it: proxy A.
//!
//! Invariant: a call is right only with status 200, every byte of the message and `grpc-status: 0` in the trailers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Version};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Shared;
use super::pace::Pace;
use crate::message::{GRPC_ANSWER, GRPC_PATH, GRPC_REQUEST};

type Line = SendRequest<Bytes>;

/// One call on a connection of its own.
pub(super) async fn once(address: SocketAddr) -> Result<()> {
    call(connect(address).await?).await
}

/// As many calls as come back, on so many connections with so many streams each.
pub(super) async fn closed(address: SocketAddr, size: (usize, usize), tally: Shared) -> Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..size.0 {
        let line = connect(address).await?;
        for _ in 0..size.1 {
            let (line, tally) = (line.clone(), Rc::clone(&tally));
            tasks.spawn_local(async move {
                while !tally.borrow().over() {
                    let sent = Instant::now();
                    match call(line.clone()).await {
                        Ok(()) => tally.borrow_mut().right(sent),
                        Err(error) => return tally.borrow_mut().wrong(&error),
                    }
                }
            });
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// `rps` calls per second, spread over `connections` in turn.
pub(super) async fn open(address: SocketAddr, rps: u32, connections: usize, tally: Shared) -> Result<()> {
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(connect(address).await?);
    }
    let end = tally.borrow().window.to;
    let outstanding = Rc::new(Cell::new(0usize));
    let mut pace = Pace::new(rps)?;
    for turn in 0.. {
        let due = pace.next().await?;
        if due >= end {
            break;
        }
        let (line, tally) = (lines[turn % connections].clone(), Rc::clone(&tally));
        let count = Rc::clone(&outstanding);
        count.set(count.get() + 1);
        tokio::task::spawn_local(async move {
            match call(line).await {
                Ok(()) => tally.borrow_mut().right(due),
                Err(error) => tally.borrow_mut().wrong(&error),
            }
            count.set(count.get() - 1);
        });
    }
    for _ in 0..100 {
        if outstanding.get() == 0 {
            return Ok(());
        }
        tokio::time::sleep(super::PATIENCE / 200).await;
    }
    for _ in 0..outstanding.get() {
        tally.borrow_mut().wrong(&anyhow::anyhow!("no answer"));
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<Line> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (line, connection) =
        h2::client::Builder::new().initial_connection_window_size(1 << 20).handshake(stream).await?;
    tokio::task::spawn_local(async move {
        // Whatever ends the connection also ends its calls, where it is counted.
        let _ = connection.await;
    });
    Ok(line)
}

async fn call(line: Line) -> Result<()> {
    let mut line = line.ready().await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://server.bench{GRPC_PATH}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut body) = line.send_request(request, false)?;
    body.send_data(Bytes::from_static(GRPC_REQUEST.as_slice()), true)?;
    let answer = answer.await?;
    ensure!(answer.status() == 200, "status {}", answer.status());
    let mut body = answer.into_body();
    let mut read = 0;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        let expected = GRPC_ANSWER.get(read..read + piece.len()).context("a message too long")?;
        ensure!(piece == expected, "a message with other bytes");
        read += piece.len();
    }
    ensure!(read == GRPC_ANSWER.len(), "a message of {read} bytes");
    let trailers = body.trailers().await?.context("no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "trailers {trailers:?}");
    Ok(())
}
