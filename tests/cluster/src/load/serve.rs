//! A server that tells who it is and what reached it.
//!
//! HTTP/1 and HTTP/2 on the same ports, without TLS or within; `/delay/MILLISECONDS` answers later, `/status/CODE`
//! answers so, `grpc.health.v1.Health/Check` answers as gRPC does. TCP ports echo lines; a greeting port
//! speaks first.
//!
//! Invariant: the answer holds the request as it arrived: path, headers in their case, and from where.

mod answer;
mod secret;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long what is under way may take after SIGTERM. Source: below the pods' grace of 30 s.
const FINISHING: Duration = Duration::from_secs(20);

/// A server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Ports that speak HTTP.
    #[arg(long, default_values_t = [8080])]
    http: Vec<u16>,
    /// Ports that speak HTTP within TLS of their own.
    #[arg(long)]
    https: Vec<u16>,
    /// Ports that echo lines.
    #[arg(long)]
    tcp: Vec<u16>,
    /// Ports that greet, then echo lines.
    #[arg(long)]
    greet: Vec<u16>,
    /// What SIGTERM does.
    #[arg(long, default_value = "drain")]
    on_term: OnTerm,
    /// Seconds that `drain` still accepts.
    #[arg(long, default_value_t = 3)]
    linger: u64,
    /// Told with every answer.
    #[arg(long, default_value = "")]
    version: String,
}

/// What SIGTERM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnTerm {
    /// Ends at once.
    Exit,
    /// Accepts nothing more, finishes what is under way.
    Finish,
    /// Accepts a little longer, then finishes what is under way.
    Drain,
}

/// Where it stands: what it tells of itself.
#[derive(Debug, Clone)]
struct Me {
    pod: String,
    version: String,
}

/// Serves until SIGTERM, and then as long as it was told to.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let pod = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let me = Arc::new(Me { pod, version: args.version.clone() });
    let (stop, stopping) = watch::channel(false);
    let mut ports = JoinSet::new();
    for port in &args.http {
        ports.spawn(serve_http(listen(*port)?, None, Arc::clone(&me), stopping.clone()));
    }
    for port in &args.https {
        let tls = Some(secret::acceptor()?);
        ports.spawn(serve_http(listen(*port)?, tls, Arc::clone(&me), stopping.clone()));
    }
    for (port, greets) in
        args.tcp.iter().map(|port| (port, false)).chain(args.greet.iter().map(|port| (port, true)))
    {
        ports.spawn(serve_lines(listen(*port)?, Arc::clone(&me), greets, stopping.clone()));
    }
    crate::tell(&serde_json::json!({"serving": me.pod, "http": args.http, "tcp": args.tcp}))?;
    term.recv().await;
    match args.on_term {
        OnTerm::Exit => return Ok(()),
        OnTerm::Finish => {}
        OnTerm::Drain => crate::after(Duration::from_secs(args.linger)).await,
    }
    stop.send_replace(true);
    // What takes longer is cut, as the kubelet would.
    let _ = tokio::time::timeout(FINISHING, async { while ports.join_next().await.is_some() {} }).await;
    Ok(())
}

/// A port on every address of both families, or of the only family there is.
pub(crate) fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let bound = |address: SocketAddr| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bound((Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_| bound((Ipv4Addr::UNSPECIFIED, port).into()))
        .with_context(|| format!("port {port}"))
}

async fn serve_http(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    me: Arc<Me>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        // The peer of a connection that failed at once knows.
        let Ok((stream, peer)) = accepted else { continue };
        let (tls, me, stopping) = (tls.clone(), Arc::clone(&me), stopping.clone());
        connections.spawn(async move {
            match tls {
                None => connection(stream, peer, me, stopping).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, peer, me, stopping).await;
                    }
                }
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<S>(stream: S, peer: SocketAddr, me: Arc<Me>, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer::answer(Arc::clone(&me), peer, request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().preserve_header_case(true);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    // How a connection ends is its client's to tell.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stopping.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn serve_lines(listener: TcpListener, me: Arc<Me>, greets: bool, mut stopping: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            _ = stopping.changed() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            let pod = me.pod.clone();
            tokio::spawn(async move {
                // As above.
                let _ = lines(stream, &pod, greets).await;
            });
        }
    }
}

async fn lines(stream: TcpStream, pod: &str, greets: bool) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    if greets {
        stream.write_all(format!("welcome to {pod}\n").as_bytes()).await?;
    }
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        stream.write_all(format!("{pod} heard {line}").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}
