//! One sidecar, put together: settings in, threads and listeners out, until it is told to leave.
//!
//! The main thread does the chores; each data thread (`app/thread.rs`) runs both spines. Chores that have no
//! room of their own are in `app/chores.rs`.
//!
//! Invariant: nothing is accepted before the configuration of this workload is in force.
//! Invariant: leaving goes in order: keep accepting while others still come, then finish, then cut.

mod chores;
mod describe;
mod standing;
mod thread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_proxy_core::{Identity, Name};
use weft_proxy_net::http::client::{HeadLimits, Http2Limits};
use weft_proxy_net::http::{FrameLimits, LiveLimits, ServeLimits};
use weft_proxy_net::listen::{Bind, Listener};

use crate::access_log::{AccessLog, Writer};
use crate::admin::pulse::Pulse;
use crate::admin::{Admin, Sidecar};
use crate::certify::{Certifier, Credentials};
use crate::dial::Dial;
use crate::explain::{Explainer, Looking};
use crate::log::{Format, Log};
use crate::metrics::Metrics;
use crate::metrics::edge::Party;
use crate::observe::Observer;
use crate::plane::{DataLimits, Plane};
use crate::record::Telemetry;
use crate::record::clock::Clock;
use crate::record::ring::Decisions;
use crate::rooms::accept::Door;
use crate::settings::{AccessLogSink, Limits, RunArgs, Settings};
use crate::subscribe::Subscriber;
use crate::trace::Sampling;
use crate::trace::export::{self, Export};
use crate::trace::follow::Follower;
use crate::trace::origin::Origin;
use crate::trace::span::{Finished, Spans};
use chores::{Desk, Stage};

/// Runs one sidecar until it is told to leave.
///
/// # Errors
/// Settings that do not add up, addresses that cannot be bound, files that cannot be read; each says
/// what to do.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    let settings = Arc::new(args.lower()?);
    let log = Log::start(Format::Json, &settings.log)?;
    if settings.exit_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("binding this process's life to its parent's")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the chores thread")?;
    runtime.block_on(live(settings, log))
}

/// The telemetry of a process and the far ends of its queues.
struct Seen {
    telemetry: Telemetry,
    writer: Writer,
    finished: tokio::sync::mpsc::Receiver<Finished>,
}

fn telemetry(settings: &Settings) -> anyhow::Result<Seen> {
    let metrics = Arc::new(Metrics::default());
    let sink: Box<dyn std::io::Write + Send> = match &settings.access_log_file {
        AccessLogSink::Stdout => Box::new(std::io::stdout()),
        AccessLogSink::File(path) => Box::new(
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("opening the access log {}", path.display()))?,
        ),
    };
    let (access_log, writer) =
        AccessLog::start(sink, metrics.clone()).context("starting the access log's thread")?;
    let (spans, finished) = Spans::queue();
    let telemetry = Telemetry {
        decisions: Decisions::default(),
        signs_all: Arc::default(),
        counts_traffic: !settings.no_traffic_metrics,
        clock: Clock::start(),
        metrics,
        log: access_log,
        spans,
        sampling: Arc::new(Sampling::default()),
        taps: Arc::default(),
    };
    Ok(Seen { telemetry, writer, finished })
}

async fn live(settings: Arc<Settings>, log: Log) -> anyhow::Result<()> {
    let Seen { telemetry, writer, finished } = telemetry(&settings)?;
    let credentials = Arc::new(Credentials::new(!settings.no_tls_resumption));
    let dial = Dial::new(&settings, credentials.clone())?.counting(telemetry.metrics.clone());
    let certifier = Certifier::new(&settings, dial.clone());
    let certificate = certifier.status();
    let (subscriber, lookup) = Subscriber::new(&settings, dial, certifier.renewal());
    let (snapshots, stream) = (subscriber.snapshots(), subscriber.status());
    let workers = settings.workers.get();
    let looking = Arc::new(Looking::new(workers));
    let explainer =
        Explainer { snapshots: snapshots.clone(), lookup: lookup.clone(), looking: looking.clone() };
    let observer = Observer::new(telemetry.clone(), settings.workload.clone(), explainer);
    let subscriber = subscriber.observed(observer.clone());
    let plane = Arc::new(Plane {
        snapshots,
        identity: credentials.tls().clone(),
        lookup,
        clock: telemetry.clock.clone(),
        limits: data_limits(&settings.limits, workers),
        own: own(&settings),
        pulse: Pulse::new(workers),
        looking,
        telemetry,
    });
    let stage = watch::Sender::new(Stage::Waiting);
    let listeners = thread::start(&plane, &doors(&settings), workers, &stage)?;
    let admin = Listener::bind(Bind::to(settings.admin))
        .with_context(|| format!("binding --admin {}", settings.admin))?;
    let admin_address = admin.local_addr()?;
    let desk = Arc::new(Desk {
        settings: settings.clone(),
        plane: plane.clone(),
        stage,
        certificate,
        stream,
        credentials,
    });
    let stop = CancellationToken::new();
    let origin = Arc::new(ArcSwap::from_pointee(origin(&settings)));
    tokio::spawn(certifier.run());
    tokio::spawn(subscriber.run());
    tokio::spawn(observer.remember());
    let telemetry = &plane.telemetry;
    let sidecar: Arc<dyn Sidecar> = desk.clone();
    let server = Admin::new(sidecar, telemetry.metrics.clone(), telemetry.clock.clone(), log);
    tokio::spawn(server.serve(admin.into_inner(), stop.clone()));
    let (follower, exporting) = exporting(&settings, telemetry, (&origin, &stop), finished);
    tokio::spawn(chores::follow(desk.clone(), origin, follower));
    tokio::spawn(chores::tidy(plane.clone(), settings.limits.series_idle));
    tokio::spawn(chores::tell_waiting(desk.clone()));
    chores::until_ready(&desk).await;
    chores::tell_ready(&desk, admin_address, &listeners.addresses)?;
    chores::until_told_to_leave(&desk).await?;
    chores::leave(&desk, listeners).await;
    stop.cancel();
    // What is left of traces has as long as one export may take.
    let _ = tokio::time::timeout(LAST_EXPORT, exporting).await;
    writer.finish();
    Ok(())
}

/// Source: the exporter's own deadline for one batch.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Starts the exporter of traces, and gives whom to tell what is in force.
fn exporting(
    settings: &Settings,
    telemetry: &Telemetry,
    (origin, stop): (&Arc<ArcSwap<Origin>>, &CancellationToken),
    finished: tokio::sync::mpsc::Receiver<Finished>,
) -> (Follower, tokio::task::JoinHandle<()>) {
    let workers = settings.workers.get();
    let follower = Follower::new(settings.otlp.as_deref(), workers, telemetry.sampling.clone());
    let export = Export {
        collector: follower.collector(),
        origin: origin.clone(),
        metrics: telemetry.metrics.clone(),
        clock: telemetry.clock.clone(),
        stop: stop.clone(),
    };
    (follower, tokio::spawn(export::run(export, finished)))
}

fn own(settings: &Settings) -> Party {
    let workload = &settings.workload;
    Party {
        workload: Name::from(workload.pod.as_str()),
        namespace: Name::from(workload.namespace.as_str()),
        identity: None::<Identity>,
    }
}

fn origin(settings: &Settings) -> Origin {
    Origin {
        workload: String::new(),
        namespace: settings.workload.namespace.clone(),
        pod: settings.workload.pod.clone(),
        node: String::new(),
        zone: settings.zone.clone().unwrap_or_default(),
        version: String::new(),
    }
}

/// All addresses to listen on, and what each stands for.
fn doors(settings: &Settings) -> Vec<(SocketAddr, Door)> {
    let mut doors = Vec::new();
    doors.extend(settings.transparent_outbound.map(|address| (address, Door::Outbound)));
    doors.extend(settings.transparent_inbound.map(|address| (address, Door::Inbound)));
    for explicit in &settings.outbound {
        let service = Name::from(explicit.service.to_string().as_str());
        doors.push((explicit.listen, Door::Service(service)));
    }
    for explicit in &settings.inbound {
        let door = Door::Application { address: explicit.target, port: explicit.port };
        doors.push((explicit.listen, door));
    }
    doors
}

fn data_limits(limits: &Limits, workers: usize) -> DataLimits {
    DataLimits {
        serve: ServeLimits {
            head: HeadLimits { fields: limits.max_headers, bytes: limits.max_header_bytes },
            http2: Http2Limits {
                stream_window: limits.h2_stream_window,
                connection_window: limits.h2_connection_window,
                streams: limits.h2_max_streams,
                head_bytes: u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX),
                frames: FrameLimits { control: limits.h2_max_control_frames, interim: limits.max_interim },
                ..Http2Limits::default()
            },
        },
        live: LiveLimits {
            head: limits.header_timeout,
            idle: limits.http_idle_timeout,
            stall: limits.stall_timeout,
            held: (limits.max_held_bytes / workers.max(1)).max(1),
        },
        connect: APPLICATION_CONNECT,
        detect: limits.detect_timeout,
        detect_bytes: limits.detect_bytes,
        handshake: limits.handshake_timeout,
        idle: limits.tcp_idle_timeout,
        connections: limits.max_connections,
        application_connections: APPLICATION_CONNECTIONS,
        application_pending: APPLICATION_CONNECTIONS,
        application_idle: APPLICATION_IDLE,
        mark: None,
    }
}

/// A connection to the application. Source: loopback answers at once; a full backlog is retried by the
/// kernel after 1 s and 3 s.
const APPLICATION_CONNECT: Duration = Duration::from_secs(5);
/// Source: as many as a worker's downstream connections by Envoy's default per host; an application that
/// takes more is rare.
const APPLICATION_CONNECTIONS: u32 = 4096;
/// Below the shortest common idle limit of application servers, so that the sidecar closes first.
/// Source: Node's keepAliveTimeout, 5 s.
const APPLICATION_IDLE: Duration = Duration::from_secs(4);
