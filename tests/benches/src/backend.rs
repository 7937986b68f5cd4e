//! The servers behind the proxies, each a child process of one thread.
//! Before this: proxy B. After it: nothing; the answer goes back the way the request came.
//!
//! Invariant: a backend does as little as a right answer needs, so that both cores are left to the proxies.
//! Invariant: it answers the exact request only; a request that a proxy has spoilt is seen as a bad answer.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::message::{
    BLOCK, BLOCK_BYTES, ECHO, ECHO_COMMAND, GRPC_ANSWER, GRPC_PATH, GRPC_REQUEST, HTTP_ANSWER, HTTP_PATH,
    STREAM_COMMAND,
};
use crate::plan::Shape;
use crate::process::Process;

/// First argument of the rig when it is to be a backend.
pub(crate) const BACKEND: &str = "child:backend";

/// A running backend.
pub(crate) struct Backend {
    /// Where it listens, on loopback.
    pub(crate) address: SocketAddr,
    _process: Process,
}

impl Backend {
    /// Starts a backend for `shape` and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(shape: Shape, workdir: &Path) -> Result<Self> {
        let ready = workdir.join(format!("backend-{}.address", shape.word()));
        let args = [BACKEND, shape.word(), &ready.to_string_lossy()].map(str::to_owned);
        let mut process =
            Process::start(&format!("backend-{}", shape.word()), &std::env::current_exe()?, &args, workdir)?;
        process.wait_for_file(&ready)?;
        let address =
            std::fs::read_to_string(&ready)?.trim().parse().context("the backend wrote no address")?;
        Ok(Self { address, _process: process })
    }
}

/// Serves until killed; `words` are the shape and the file that receives the address.
///
/// # Errors
/// The arguments are wrong or the socket cannot be opened.
pub(crate) fn serve(words: &[String]) -> Result<()> {
    let [shape, ready] = words else { anyhow::bail!("{BACKEND} needs a shape and a file") };
    let shape = Shape::named(shape)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let partial = format!("{ready}.partial");
        std::fs::write(&partial, listener.local_addr()?.to_string())?;
        std::fs::rename(&partial, ready)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            match shape {
                Shape::Http => drop(tokio::spawn(http(stream))),
                Shape::Grpc => drop(tokio::spawn(grpc(stream))),
                Shape::Tcp => drop(tokio::spawn(tcp(stream))),
            }
        }
    })
}

async fn http(mut stream: TcpStream) -> Result<()> {
    let mut held = Vec::with_capacity(2048);
    loop {
        while let Some(end) = memmem::find(&held, b"\r\n\r\n").map(|at| at + 4) {
            let right =
                held.starts_with(b"GET ") && held.get(4..4 + HTTP_PATH.len()) == Some(HTTP_PATH.as_bytes());
            ensure!(right, "not the request that was sent");
            held.drain(..end);
            stream.write_all(&HTTP_ANSWER).await?;
        }
        ensure!(held.len() < 64 * 1024, "a head without end");
        if stream.read_buf(&mut held).await? == 0 {
            return Ok(());
        }
    }
}

async fn grpc(stream: TcpStream) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(call(request, respond));
    }
    Ok(())
}

async fn call(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let path_is_right = request.uri().path() == GRPC_PATH;
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        message.extend_from_slice(&piece);
        ensure!(message.len() <= GRPC_REQUEST.len(), "a message too long");
    }
    let right = path_is_right && message == GRPC_REQUEST[..];
    let mut head = Response::new(());
    *head.status_mut() = if right { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut out = respond.send_response(head, false)?;
    out.reserve_capacity(GRPC_ANSWER.len());
    while out.capacity() < GRPC_ANSWER.len() {
        poll_fn(|cx| out.poll_capacity(cx)).await.context("the stream is gone")??;
    }
    out.send_data(Bytes::from_static(GRPC_ANSWER.as_slice()), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    out.send_trailers(trailers)?;
    Ok(())
}

async fn tcp(mut stream: TcpStream) -> Result<()> {
    let mut message = vec![0; ECHO.len()];
    loop {
        if stream.read(&mut message[..1]).await? == 0 {
            return Ok(());
        }
        match message[0] {
            ECHO_COMMAND => {
                stream.read_exact(&mut message[1..]).await?;
                stream.write_all(&message).await?;
            }
            STREAM_COMMAND => return endless(stream).await,
            other => anyhow::bail!("no such command: {other}"),
        }
    }
}

async fn endless(mut stream: TcpStream) -> Result<()> {
    let mut block = BLOCK.clone();
    for number in 0..u64::MAX / BLOCK_BYTES as u64 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        stream.write_all(&block).await?;
    }
    Ok(())
}
