//! The chores that have no room of their own: following the mesh's settings, readiness, leaving.
//!
//! Invariant: the stages only go forward.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use weft_proxy_core::{Inbound, spec};

use super::standing::Standing;
use super::thread::Threads;
use crate::access_log::policy::ALL_PPM;
use crate::access_log::{Format, Mode, Policy};
use crate::admin::Sidecar;
use crate::certify::{CertificateStatus, Credentials};
use crate::plane::Plane;
use crate::settings::{AccessLogChoice, Settings};
use crate::subscribe::StreamStatus;
use crate::trace::follow::Follower;
use crate::trace::origin::Origin;

/// How far the sidecar's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// No configuration yet: nothing is accepted.
    Waiting,
    /// Traffic is served.
    Serving,
    /// Told to leave; still accepting, until everybody has heard.
    Lingering,
    /// Accepting no more; what is in flight is finished.
    Finishing,
    /// Time is up.
    Cutting,
}

/// What the chores know of the sidecar.
pub(super) struct Desk {
    pub(super) settings: Arc<Settings>,
    pub(super) plane: Arc<Plane>,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) certificate: watch::Receiver<CertificateStatus>,
    pub(super) stream: watch::Receiver<StreamStatus>,
    pub(super) credentials: Arc<Credentials>,
}

impl Sidecar for Desk {
    fn ready(&self) -> Result<(), String> {
        match *self.stage.borrow() {
            Stage::Serving => self.live(),
            Stage::Waiting => Err(self.awaited()),
            Stage::Lingering | Stage::Finishing | Stage::Cutting => Err("draining".to_owned()),
        }
    }

    fn live(&self) -> Result<(), String> {
        self.plane.pulse.check(self.plane.clock.now())
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "settings": self.settings.to_json(),
            "certificate": *self.certificate.borrow(),
            "roots": super::describe::roots(self.credentials.trust().as_deref()),
            "stream": *self.stream.borrow(),
            "snapshot": super::describe::snapshot(&self.plane.snapshot()),
        })
    }

    fn drain(&self) {
        advance(&self.stage, Stage::Lingering);
    }
}

impl Desk {
    /// What a sidecar that is not ready waits for.
    fn awaited(&self) -> String {
        let certificate = self.certificate.borrow();
        if certificate.identity.is_none() {
            let problem = certificate.problem.as_deref().unwrap_or("none has been asked for yet");
            return format!("no certificate yet: {problem}");
        }
        let stream = self.stream.borrow();
        let problem = stream.problem.as_deref().unwrap_or(
            "the control plane has not sent this workload's configuration; does it know a Pod of this name?",
        );
        format!("no configuration yet: {problem}")
    }
}

fn advance(stage: &watch::Sender<Stage>, to: Stage) {
    stage.send_if_modified(|stage| {
        let forward = *stage < to;
        if forward {
            *stage = to;
        }
        forward
    });
}

/// Follows what the mesh says about telemetry, and keeps the gauges of certificate and configuration.
pub(super) async fn follow(desk: Arc<Desk>, origin: Arc<ArcSwap<Origin>>, mut traces: Follower) {
    let (mut certificate, mut stream) = (desk.certificate.clone(), desk.stream.clone());
    let mut changes = desk.plane.snapshots.changes();
    let mut standing = Standing::default();
    loop {
        settle(&desk, &origin, &mut traces);
        standing.show(&desk);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = certificate.changed() => if changed.is_err() { return },
            changed = stream.changed() => if changed.is_err() { return },
        }
    }
}

fn settle(desk: &Desk, origin: &ArcSwap<Origin>, traces: &mut Follower) {
    let snapshot = desk.plane.snapshot();
    let telemetry = &desk.plane.telemetry;
    let told = snapshot.inbound.as_ref().and_then(|inbound| inbound.telemetry.as_deref());
    telemetry.log.set(log_policy(desk.settings.access_log, &snapshot.mesh, told));
    telemetry.tell_callers(told.is_some_and(|told| told.response_headers));
    if let Some(inbound) = &snapshot.inbound {
        traces.follow(told, &snapshot.mesh);
        let told = told_by(&origin.load(), inbound);
        if **origin.load() != told {
            origin.store(Arc::new(told));
        }
    }
}

/// What is logged: which requests, as the pod itself says, else its policies, else the Mesh; how, as the
/// policies say.
fn log_policy(own: AccessLogChoice, mesh: &spec::Mesh, told: Option<&spec::Telemetry>) -> Policy {
    let mode = match (own, told.map_or(mesh.access_log, |told| told.access_log)) {
        (AccessLogChoice::Off, _) | (AccessLogChoice::Mesh, spec::AccessLog::Off) => Mode::Off,
        (AccessLogChoice::All, _) | (AccessLogChoice::Mesh, spec::AccessLog::All) => Mode::All,
        (AccessLogChoice::Errors, _) | (AccessLogChoice::Mesh, spec::AccessLog::Errors) => Mode::Errors,
    };
    let Some(told) = told else { return Policy::of(mode) };
    Policy {
        mode,
        ppm: told.access_log_sampling_ppm.unwrap_or(ALL_PPM),
        format: match told.access_log_format {
            spec::LogFormat::Weft => Format::Weft,
            spec::LogFormat::Ecs => Format::Ecs,
        },
        query: told.access_log_query.clone(),
        headers: told
            .access_log_headers
            .iter()
            .map(|field| (Arc::clone(&field.name), field.header.clone()))
            .collect(),
    }
}

/// Who this is, with what the control plane knows of it.
fn told_by(known: &Origin, inbound: &Inbound) -> Origin {
    let mut origin = known.clone();
    let learn = |what: &mut String, told: &str| {
        if !told.is_empty() {
            told.clone_into(what);
        }
    };
    learn(&mut origin.workload, &inbound.owner);
    if let Some(telemetry) = &inbound.telemetry {
        learn(&mut origin.node, &telemetry.node);
        learn(&mut origin.zone, &telemetry.zone);
        learn(&mut origin.version, &telemetry.version);
    }
    origin
}

/// Lets go, now and then, of series that nobody uses.
pub(super) async fn tidy(plane: Arc<Plane>, idle: Duration) {
    let mut timer = tokio::time::interval(idle);
    loop {
        timer.tick().await;
        plane.telemetry.metrics.sweep();
    }
}

/// Says in the log, now and then, what a sidecar that is not ready waits for: the application beside it
/// does not start before, and this is where a person looks.
pub(super) async fn tell_waiting(desk: Arc<Desk>) {
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + TELL, TELL);
    while *desk.stage.borrow() == Stage::Waiting {
        timer.tick().await;
        if *desk.stage.borrow() == Stage::Waiting {
            let waits_for = desk.awaited();
            tracing::warn!(waits_for, control_plane = %desk.settings.control_plane, "not ready");
        }
    }
}

/// Source: a kubelet's usual period between probes.
const TELL: Duration = Duration::from_secs(10);

/// Waits until the workload's configuration is in force and there is a certificate to serve it with. A
/// configuration from the disk does not wait for a certificate for long: its plaintext part can be served.
pub(super) async fn until_ready(desk: &Desk) {
    let mut changes = desk.plane.snapshots.changes();
    while desk.plane.snapshot().inbound.is_none() {
        if changes.changed().await.is_err() {
            return;
        }
    }
    let mut certificate = desk.certificate.clone();
    let certified = certificate.wait_for(|certificate| certificate.identity.is_some());
    let _ = tokio::time::timeout(WITHOUT_CERTIFICATE, certified).await;
    advance(&desk.stage, Stage::Serving);
}

/// Source: several attempts of the certifier's; longer than a control plane that is up needs.
const WITHOUT_CERTIFICATE: Duration = Duration::from_secs(3);

/// Says where the sidecar listens, on the log and in the ready file.
pub(super) fn tell_ready(desk: &Desk, admin: SocketAddr, listeners: &[SocketAddr]) -> anyhow::Result<()> {
    let ready = json!({ "event": "ready", "admin": admin, "listeners": listeners });
    tracing::info!(%admin, ?listeners, "ready");
    let Some(path) = &desk.settings.ready_file else { return Ok(()) };
    let aside = path.with_extension("tmp");
    std::fs::write(&aside, ready.to_string())
        .and_then(|()| std::fs::rename(&aside, path))
        .with_context(|| format!("writing the ready file {}", path.display()))
}

/// Waits for SIGTERM, SIGINT or `/drain`.
pub(super) async fn until_told_to_leave(desk: &Desk) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let mut stage = desk.stage.subscribe();
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        _ = stage.wait_for(|stage| *stage >= Stage::Lingering) => tracing::info!("/drain: draining"),
    }
    advance(&desk.stage, Stage::Lingering);
    Ok(())
}

/// Leaves: lingers, finishes, cuts.
pub(super) async fn leave(desk: &Desk, threads: Threads) {
    let mesh = desk.plane.snapshot().mesh.clone();
    let mut deadline = desk.settings.drain_deadline.unwrap_or(mesh.drain_deadline);
    if desk.settings.native_sidecar {
        // Nobody is left to take requests, and what would be sent here is safe to send elsewhere.
        deadline = deadline.min(WITHOUT_APPLICATION);
    } else {
        tokio::time::sleep(desk.settings.drain_linger.unwrap_or(mesh.drain_linger)).await;
    }
    advance(&desk.stage, Stage::Finishing);
    let done = async {
        while !threads.are_done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::pin!(done);
    if tokio::time::timeout(deadline, &mut done).await.is_err() {
        advance(&desk.stage, Stage::Cutting);
        let _ = tokio::time::timeout(LAST_WORD, done).await;
    }
}

/// How long a native sidecar finishes what its application left. Source: answers on their way out; far
/// below the shortest usual grace period, 30 s.
const WITHOUT_APPLICATION: Duration = Duration::from_secs(5);

/// How long cut connections may take to end. Source: generous for what is only dropping.
const LAST_WORD: Duration = Duration::from_secs(2);
