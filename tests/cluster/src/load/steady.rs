//! Steady load: so many requests a second, over kept or new connections, until SIGTERM.
//!
//! It ends as a good client does: nothing new is begun, what is under way is awaited, and the report is
//! its last word. Until then `GET /` at the report's address gives the counts so far.
//!
//! Invariant: a failure is never hidden by a retry; the next request is the next request.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{Request, Response, Uri, Version};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::client::{Connection, within};
use crate::report::Report;
use crate::serve::listen;

/// Steady load.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Where to.
    url: Uri,
    /// Requests a second, all workers together.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Requests that may be under way at once.
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// A new connection for every request.
    #[arg(long)]
    fresh: bool,
    /// In HTTP/2 without TLS.
    #[arg(long)]
    http2: bool,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 15)]
    timeout: u64,
    /// Port of the report.
    #[arg(long, default_value_t = 9099)]
    report: u16,
}

type Shared = Rc<RefCell<Report>>;

/// Asks until told to end; the report is the last line of standard output.
pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let report = Shared::default();
    let (end, ending) = watch::channel(false);
    let began = Instant::now();
    let local = LocalSet::new();
    let reporter = listen(args.report)?;
    local.spawn_local(answer(reporter, Rc::clone(&report)));
    let workers: Vec<_> = (0..args.workers)
        .map(|at| local.spawn_local(work(args.clone(), at, began, Rc::clone(&report), ending.clone())))
        .collect();
    local
        .run_until(async {
            term.recv().await;
            end.send_replace(true);
            for worker in workers {
                // A worker that panicked has said so.
                let _ = worker.await;
            }
        })
        .await;
    report.borrow_mut().ended = true;
    crate::tell(&serde_json::to_value(&*report.borrow())?)
}

async fn work(args: LoadArgs, at: u32, began: Instant, report: Shared, mut ending: watch::Receiver<bool>) {
    let period = Duration::from_secs(1) * args.workers / args.rate.max(1);
    // Workers take turns.
    let first = tokio::time::Instant::now() + period * at / args.workers;
    let mut turns = interval_at(first, period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept: Option<Connection> = None;
    loop {
        tokio::select! {
            _ = ending.changed() => return,
            _ = turns.tick() => {}
        }
        let connection = kept.take().filter(|connection| !args.fresh && !connection.is_closed());
        match within(Duration::from_secs(args.timeout), ask(&args, connection)).await {
            Ok((pod, connection)) => {
                report.borrow_mut().success(&pod);
                kept = Some(connection);
            }
            Err(what) => report.borrow_mut().failure(began.elapsed().as_millis(), what),
        }
    }
}

async fn ask(args: &LoadArgs, connection: Option<Connection>) -> Result<(String, Connection), String> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(&args.url, args.http2).await?,
    };
    let authority = args.url.authority().map_or("", |authority| authority.as_str());
    let request = if args.http2 {
        Request::builder().version(Version::HTTP_2).uri(args.url.clone())
    } else {
        let path = args.url.path_and_query().map_or("/", |path| path.as_str());
        Request::builder().uri(path).header("host", authority)
    };
    let request = request.body(Full::default()).map_err(|error| format!("send: {error}"))?;
    let answer = connection.ask(request).await?;
    if !answer.status().is_success() {
        let body = String::from_utf8_lossy(answer.body());
        return Err(format!("{}: {body}", answer.status().as_u16()));
    }
    let pod = answer.headers().get("x-pod").and_then(|pod| pod.to_str().ok()).unwrap_or("?").to_owned();
    Ok((pod, connection))
}

/// Gives the counts so far to whoever asks.
async fn answer(listener: tokio::net::TcpListener, report: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        let report = Rc::clone(&report);
        tokio::task::spawn_local(async move {
            let service = service_fn(|_| {
                let text = serde_json::to_vec(&*report.borrow()).unwrap_or_default();
                std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(
                    text,
                ))))
            });
            // Whoever goes away before the answer did not want it.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
