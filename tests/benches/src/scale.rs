//! The control plane at scale: thousands of simulated sidecars on loopback, and what each of them costs.
//! Before this: `bench` was asked for `scale`. The walk: `plane` compiles and serves → `fleet` connects → changes, changes
//! that are none, everybody returning → `scale/report`.
//!
//! Invariant: control plane and fleet are processes of their own; memory and CPU are the control plane's alone.

pub(crate) mod fleet;
mod mesh;
pub(crate) mod plane;
mod report;
mod talk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use serde::Serialize;

use self::mesh::Mesh;
use self::talk::{OfPlane, Receipt, Received, Taken, Talk, ToFleet, ToPlane};
use crate::cpu;
use crate::histogram::Histogram;
use crate::process::{self, Process};

/// The word that asks for this.
pub(crate) const SCALE: &str = "scale";

/// Measures the control plane with thousands of connected sidecars.
#[derive(Parser)]
#[command(name = "weft-bench scale")]
pub(crate) struct Args {
    /// Services, each with ten endpoints.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Connected sidecars, each subscribed to twenty services.
    #[arg(long, default_value_t = 5000)]
    sidecars: usize,
    /// Changes that are counted.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// A small mesh and few changes, to prove that the rig works; its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Fails if a goal is missed.
    #[arg(long)]
    gate: bool,
    /// Folder for scale.md, scale.json and the processes' logs. Default: `weft-bench-report` beside the binary.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Everything that was measured of one mesh.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    services: usize,
    endpoints: usize,
    sidecars: usize,
    subscribers: usize,
    /// Memory of the control plane without a sidecar, KiB.
    bare_kib: u64,
    /// Memory for each connected sidecar, KiB.
    sidecar_kib: f64,
    /// Everybody connects and is told everything.
    first: Round,
    /// Everybody returns and holds everything.
    again: Round,
    changes: Changes,
    /// Receipts of changes that compile to the same bytes.
    same_receipts: usize,
    /// CPU milliseconds a second when nothing happens.
    idle_cpu_ms: f64,
}

/// Everybody connecting.
#[derive(Debug, Default, Serialize)]
struct Round {
    seconds: f64,
    cpu_seconds: f64,
    mib: f64,
    resources: u64,
}

/// One endpoint changing, many times.
#[derive(Debug, Default, Serialize)]
struct Changes {
    count: usize,
    receipts: usize,
    resources: u64,
    p50_ms: f64,
    p99_ms: f64,
    worst_ms: f64,
    /// CPU of the control plane for a change, receipts included, microseconds.
    cpu_micros: f64,
    /// Of these: from the event to the published state.
    compile_micros: f64,
    /// The same, at worst.
    compile_worst_micros: f64,
}

/// Measures what the command line asks for; false: a goal was missed and is to fail.
///
/// # Errors
/// A process fails, or something is sent that should not be.
pub(crate) fn bench(args: &Args) -> Result<bool> {
    crate::raise_open_files()?;
    process::end_children_on_signal()?;
    let out = crate::out_folder(args.out.as_deref())?;
    let whole = match args.quick {
        true => (Mesh { services: 40, sidecars: 100 }, 20),
        false => (Mesh { services: args.services, sidecars: args.sidecars }, args.changes),
    };
    // A tenth of it, so that a change reaches as many sidecars: what differs is the size of the rest.
    let tenth = Mesh { services: whole.0.services.div_ceil(10), sidecars: whole.0.sidecars.div_ceil(10) };
    let figures = [measure(tenth, whole.1, &out)?, measure(whole.0, whole.1, &out)?];
    let text = report::markdown(&figures);
    std::fs::write(out.join("scale.md"), &text)?;
    std::fs::write(out.join("scale.json"), serde_json::to_vec_pretty(&figures)?)?;
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    let missed = report::missed(&figures);
    missed.iter().for_each(|goal| eprintln!("goal missed: {goal}"));
    Ok(!args.gate || missed.is_empty())
}

/// The running processes.
struct Rig {
    mesh: Mesh,
    pid: u32,
    plane: Talk,
    fleet: Talk,
    _processes: [Process; 2],
}

fn measure(mesh: Mesh, changes: usize, out: &Path) -> Result<Figures> {
    eprintln!(
        "{} services, {} endpoints, {} sidecars",
        mesh.services,
        mesh.services * mesh::ENDPOINTS,
        mesh.sidecars
    );
    let mut rig = Rig::start(mesh, out)?;
    let mut figures = Figures {
        services: mesh.services,
        endpoints: mesh.services * mesh::ENDPOINTS,
        sidecars: mesh.sidecars,
        subscribers: mesh.subscribers(0).count(),
        bare_kib: cpu::pss_kib(rig.pid)?,
        ..Figures::default()
    };
    figures.first = rig.everybody_connects()?;
    std::thread::sleep(SETTLE);
    let grown = cpu::pss_kib(rig.pid)?.saturating_sub(figures.bare_kib);
    figures.sidecar_kib = grown as f64 / mesh.sidecars as f64;
    figures.idle_cpu_ms = rig.idle()?;
    figures.changes = rig.changes(changes, figures.idle_cpu_ms)?;
    figures.same_receipts = rig.same(changes)?;
    let _: Received = rig.fleet.ask(&ToFleet::Close)?;
    rig.wait_for_streams(0)?;
    figures.again = rig.everybody_connects()?;
    Ok(figures)
}

impl Rig {
    fn start(mesh: Mesh, out: &Path) -> Result<Self> {
        let folder = out.join(format!("scale-{}", mesh.services));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let start = |name: &str, role: &str| {
            let file = folder.join(format!("{name}.address"));
            let words = [
                role.to_owned(),
                mesh.services.to_string(),
                mesh.sidecars.to_string(),
                folder.display().to_string(),
                file.display().to_string(),
            ];
            let mut process = Process::start(name, &std::env::current_exe()?, &words, &folder)?;
            let talk = Talk::with(&mut process, &file)?;
            anyhow::Ok((process, talk))
        };
        let (mut control, plane) = start("plane", plane::PLANE)?;
        control.wait_for_file(&folder.join(plane::GRPC))?;
        let (sidecars, fleet) = start("fleet", fleet::FLEET)?;
        Ok(Self { mesh, pid: control.pid(), plane, fleet, _processes: [control, sidecars] })
    }

    fn everybody_connects(&mut self) -> Result<Round> {
        let cpu = cpu::nanos(self.pid)?;
        let received: Received = self.fleet.ask(&ToFleet::Open)?;
        ensure!(received.lost.0 == 0, "a stream ended: {}", received.lost.1);
        // The acknowledgements of the last are still being taken.
        self.wait_for_streams(self.mesh.sidecars)?;
        Ok(Round {
            seconds: received.nanos as f64 / 1e9,
            cpu_seconds: (cpu::nanos(self.pid)? - cpu) as f64 / 1e9,
            mib: received.bytes as f64 / f64::from(1 << 20),
            resources: received.resources,
        })
    }

    fn idle(&mut self) -> Result<f64> {
        let (cpu, began) = (cpu::nanos(self.pid)?, Instant::now());
        std::thread::sleep(SETTLE);
        Ok((cpu::nanos(self.pid)? - cpu) as f64 / 1e6 / began.elapsed().as_secs_f64())
    }

    /// One endpoint after the other becomes not ready.
    fn changes(&mut self, count: usize, idle_cpu_ms: f64) -> Result<Changes> {
        let (cpu, began) = (cpu::nanos(self.pid)?, Instant::now());
        let mut taken = Vec::with_capacity(count);
        for number in 0..count {
            let service = (number * STRIDE) % self.mesh.services;
            taken.push((service, self.change(&ToPlane::Flip { service })?));
            std::thread::sleep(PAUSE);
        }
        std::thread::sleep(SETTLE);
        let cpu_micros = (cpu::nanos(self.pid)? - cpu) as f64 / 1e3;
        let idle_micros = idle_cpu_ms * 1e3 * began.elapsed().as_secs_f64();
        let received: Received = self.fleet.ask(&ToFleet::Take)?;
        ensure!(received.lost.0 == 0, "a stream ended: {}", received.lost.1);
        let (histogram, worst) = self.latencies(&taken, &received.epochs)?;
        let compile = taken.iter().map(|(_, change)| change.cpu_nanos);
        Ok(Changes {
            count,
            receipts: received.epochs.len(),
            resources: received.resources,
            p50_ms: histogram.micros(0.5) / 1e3,
            p99_ms: histogram.micros(0.99) / 1e3,
            worst_ms: worst as f64 / 1e6,
            cpu_micros: (cpu_micros - idle_micros) / count as f64,
            compile_micros: compile.clone().sum::<u64>() as f64 / 1e3 / count as f64,
            compile_worst_micros: compile.max().unwrap_or(0) as f64 / 1e3,
        })
    }

    /// How long each change took to each of its subscribers, and the longest: until the first epoch that shows it or
    /// a later one.
    fn latencies(&self, taken: &[(usize, Taken)], epochs: &[Receipt]) -> Result<(Histogram, u64)> {
        let mut of: BTreeMap<usize, Vec<&Receipt>> = BTreeMap::new();
        for receipt in epochs {
            of.entry(receipt.sidecar).or_default().push(receipt);
        }
        let (mut histogram, mut worst) = (Histogram::new(), 0);
        for (service, change) in taken {
            for sidecar in self.mesh.subscribers(*service) {
                let mut receipts = of.get(&sidecar).into_iter().flatten();
                let Some(shown) = receipts.find(|receipt| receipt.generation >= change.generation) else {
                    bail!("sidecar {sidecar} never saw generation {}", change.generation);
                };
                let nanos = shown.at.saturating_sub(change.at);
                histogram.record(nanos);
                worst = worst.max(nanos);
            }
        }
        Ok((histogram, worst))
    }

    /// Changes of which the same bytes are compiled.
    fn same(&mut self, count: usize) -> Result<usize> {
        for number in 0..count {
            self.change(&ToPlane::Shuffle { service: (number * STRIDE) % self.mesh.services })?;
        }
        std::thread::sleep(SETTLE);
        Ok(self.fleet.ask::<Received>(&ToFleet::Take)?.epochs.len())
    }

    fn change(&mut self, change: &ToPlane) -> Result<Taken> {
        match self.plane.ask(change)? {
            OfPlane::Taken(taken) => Ok(taken),
            other @ OfPlane::Told { .. } => bail!("{change:?} was answered with {other:?}"),
        }
    }

    fn wait_for_streams(&mut self, wanted: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let told: OfPlane = self.plane.ask(&ToPlane::Tell)?;
            if matches!(told, OfPlane::Told { streams, .. } if streams == wanted) {
                return Ok(());
            }
            ensure!(began.elapsed() < process::START_DEADLINE, "{wanted} streams were wanted, {told:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Services between one change and the next: neighbours share subscribers.
const STRIDE: usize = 37;
/// Time between changes, so that each is received before the next. Source: a quarter of the goal.
const PAUSE: Duration = Duration::from_millis(25);
/// Time after which whatever was going on has ended.
const SETTLE: Duration = Duration::from_secs(3);
