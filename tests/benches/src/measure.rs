//! One peer under one load: start, warm up, read the clocks, load, read the clocks, stop.
//! Before this: `check`. After it: `report`.
//!
//! Invariant: CPU is read at the two ends of the window in which answers are counted; warm-up and start are outside.
//! Invariant: peers take turns within each repetition and the order rotates, so a slow minute hits all of them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use crate::backend::Backend;
use crate::check::{Seen, check};
use crate::cpu;
use crate::load::{self, Window};
use crate::message::{ECHO, HTTP_REQUEST, http_answer};
use crate::peer::{Job, Pair, Peer};
use crate::pki::Pki;
use crate::plan::{Load, Scenario, Shape};

/// A peer with its number of workers.
pub(crate) struct Entry<'a> {
    /// The kind of pair.
    pub(crate) peer: &'a dyn Peer,
    /// Worker threads of each proxy.
    pub(crate) workers: usize,
}

impl Entry<'_> {
    /// The peer's name, with the workers where they are not one.
    pub(crate) fn label(&self) -> String {
        if self.workers == 1 {
            self.peer.name().to_owned()
        } else {
            format!("{}/{}w", self.peer.name(), self.workers)
        }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Effort {
    /// Counted seconds of a run.
    pub(crate) seconds: f64,
    /// Seconds before them.
    pub(crate) warm_up: f64,
    /// Runs of each peer.
    pub(crate) repeats: usize,
    /// Seconds that memory is given to settle.
    pub(crate) settle: f64,
}

/// One run of one peer.
#[derive(Serialize, Default, Clone)]
pub(crate) struct Sample {
    /// Label of the peer.
    pub(crate) peer: String,
    /// Number of the repetition.
    pub(crate) repeat: usize,
    /// From start of the processes to the first right answer, milliseconds.
    pub(crate) start_ms: f64,
    /// Requests, connections or GiB per second.
    pub(crate) rate: f64,
    /// Latency in microseconds at 50, 90, 99 and 99.9 %.
    pub(crate) latency_us: [f64; 4],
    /// CPU of A and B: microseconds per request or connection, or seconds per GiB.
    pub(crate) cpu: Option<[f64; 2]>,
    /// CPU of everything else that belongs to the pair, milliseconds in the window.
    pub(crate) others_cpu_ms: f64,
    /// Memory of A and B.
    pub(crate) memory: Option<Memory>,
    /// Wrong or missing answers.
    pub(crate) bad: u64,
    /// The first of them.
    pub(crate) why: Option<String>,
    /// Ticks that the host took in the window.
    pub(crate) stolen_ticks: u64,
}

impl Sample {
    /// CPU of both proxies.
    pub(crate) fn both(&self) -> Option<f64> {
        self.cpu.map(|[a, b]| a + b)
    }
}

/// PSS in KiB of A and B, with no, few and many idle connections.
#[derive(Serialize, Default, Clone, Copy)]
pub(crate) struct Memory {
    /// Before the first connection.
    pub(crate) idle: [u64; 2],
    /// With few.
    pub(crate) few: [u64; 2],
    /// With many.
    pub(crate) many: [u64; 2],
    /// KiB per connection between few and many.
    pub(crate) slope: [f64; 2],
}

/// All runs of one scenario.
#[derive(Serialize)]
pub(crate) struct Outcome {
    /// Name of the scenario.
    pub(crate) scenario: &'static str,
    /// One line about it.
    pub(crate) title: &'static str,
    /// What the check saw, by label.
    pub(crate) seen: Vec<(String, Seen)>,
    /// The runs, in the order they were made.
    pub(crate) samples: Vec<Sample>,
    /// Peers that failed, and why.
    pub(crate) failed: Vec<(String, String)>,
}

/// Checks and measures all entries in one scenario.
pub(crate) fn scenario(entries: &[Entry<'_>], plan: &Scenario, effort: Effort, place: &Place<'_>) -> Outcome {
    let mut outcome = Outcome {
        scenario: plan.name,
        title: plan.title,
        seen: Vec::new(),
        samples: Vec::new(),
        failed: Vec::new(),
    };
    let mut sound = Vec::new();
    for entry in entries.iter().filter(|entry| !is_idle(plan.load) || !entry.peer.is_direct()) {
        let label = entry.label();
        eprintln!("{}: checking {label}", plan.name);
        match place.with(entry, plan, true, |job| check(entry.peer, job)) {
            Ok(seen) => {
                outcome.seen.extend(seen.map(|seen| (label, seen)));
                sound.push(entry);
            }
            Err(error) => outcome.failed.push((label, format!("{error:#}"))),
        }
    }
    for repeat in 0..effort.repeats {
        for turn in 0..sound.len() {
            let entry = sound[(turn + repeat) % sound.len()];
            let run = place.with(entry, plan, false, |job| run(entry.peer, job, plan.load, effort));
            match run {
                Ok(sample) => {
                    outcome.samples.push(told(Sample { peer: entry.label(), repeat, ..sample }, plan))
                }
                Err(error) => outcome.failed.push((entry.label(), format!("{error:#}"))),
            }
        }
    }
    outcome
}

/// Where runs happen.
pub(crate) struct Place<'a> {
    /// Folder for the runs' files.
    pub(crate) folder: &'a Path,
    /// Certificates.
    pub(crate) pki: &'a Pki,
}

impl Place<'_> {
    fn with<T>(
        &self,
        entry: &Entry<'_>,
        plan: &Scenario,
        tapped: bool,
        work: impl FnOnce(&Job<'_>) -> Result<T>,
    ) -> Result<T> {
        let workdir = self.folder.join(format!("{}-{}", plan.name, entry.label().replace('/', "-")));
        if workdir.exists() {
            std::fs::remove_dir_all(&workdir)?;
        }
        std::fs::create_dir_all(&workdir)?;
        let backend = Backend::start(plan.shape, &workdir)?;
        let (shape, workers, resume, pki) = (plan.shape, entry.workers, plan.resume, self.pki);
        work(&Job { workdir: &workdir, shape, backend: backend.address, workers, resume, tapped, pki })
    }
}

fn run(peer: &dyn Peer, job: &Job<'_>, load: Load, effort: Effort) -> Result<Sample> {
    let begun = Instant::now();
    let mut pair = peer.start(job)?;
    if let Load::Idle { few, many } = load {
        let memory = memory(&mut pair, job.shape, [few, many], effort)?;
        return Ok(Sample { memory: Some(memory), ..Sample::default() });
    }
    pair.wait_until_right(job.shape)?;
    let start_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let sample = under_load(&pair, job.shape, load, effort)?;
    for process in pair.proxies.iter_mut().flatten().chain(&mut pair.others) {
        process.still_runs()?;
    }
    Ok(Sample { start_ms, ..sample })
}

fn under_load(pair: &Pair, shape: Shape, load: Load, effort: Effort) -> Result<Sample> {
    let from = Instant::now() + Duration::from_secs_f64(effort.warm_up);
    let window = Window { from, to: from + Duration::from_secs_f64(effort.seconds) };
    let call = pair.call;
    let generator = std::thread::Builder::new()
        .name("load".into())
        .spawn(move || load::drive(shape, load, call, window))?;
    sleep_until(window.from);
    let before = Clocks::read(pair)?;
    sleep_until(window.to);
    let after = Clocks::read(pair)?;
    let Ok(tally) = generator.join() else { bail!("the load generator panicked") };
    let tally = tally?;
    ensure!(tally.done + tally.bytes > 0, "no right answer in the window: {}", tally.why.unwrap_or_default());
    let seconds = (after.at - before.at).as_secs_f64();
    let bulk = load == Load::Bulk;
    let units = if bulk { tally.bytes as f64 / GIB } else { tally.done as f64 };
    let per_unit = |nanos: u64| nanos as f64 / units / if bulk { 1e9 } else { 1e3 };
    let cpu = pair.pids().map(|_| [0, 1].map(|side| per_unit(after.proxies[side] - before.proxies[side])));
    Ok(Sample {
        rate: units / seconds,
        latency_us: [0.5, 0.9, 0.99, 0.999].map(|share| tally.latency.micros(share)),
        cpu,
        others_cpu_ms: (after.others - before.others) as f64 / 1e6,
        bad: tally.bad,
        why: tally.why,
        stolen_ticks: after.stolen.saturating_sub(before.stolen),
        ..Sample::default()
    })
}

/// Everything that is read at one end of a window.
struct Clocks {
    at: Instant,
    proxies: [u64; 2],
    others: u64,
    stolen: u64,
}

impl Clocks {
    fn read(pair: &Pair) -> Result<Self> {
        let mut proxies = [0; 2];
        for (clock, pid) in proxies.iter_mut().zip(pair.pids().into_iter().flatten()) {
            *clock = cpu::nanos(pid)?;
        }
        let others = pair.others.iter().map(|process| cpu::nanos(process.pid())).sum::<Result<u64>>()?;
        Ok(Self { at: Instant::now(), proxies, others, stolen: cpu::stolen_ticks() })
    }
}

fn memory(pair: &mut Pair, shape: Shape, counts: [usize; 2], effort: Effort) -> Result<Memory> {
    let pids = pair.pids().context("no proxies to look at")?;
    let settle = Duration::from_secs_f64(effort.settle);
    let read = || -> Result<[u64; 2]> {
        std::thread::sleep(settle);
        Ok([cpu::pss_kib(pids[0])?, cpu::pss_kib(pids[1])?])
    };
    listening(pair.call)?;
    let idle = read()?;
    let mut open = Vec::new();
    let mut seen = [[0; 2]; 2];
    for (count, kib) in counts.into_iter().zip(&mut seen) {
        while open.len() < count {
            let mut stream = TcpStream::connect(pair.call)?;
            exchange(&mut stream, shape).with_context(|| format!("connection {}", open.len()))?;
            open.push(stream);
        }
        *kib = read()?;
    }
    for stream in open.iter_mut().step_by(STILL_GOOD) {
        exchange(stream, shape).context("an idle connection does not answer any more")?;
    }
    let [few, many] = seen;
    let slope = [0, 1].map(|side| (many[side] as f64 - few[side] as f64) / (counts[1] - counts[0]) as f64);
    Ok(Memory { idle, few, many, slope })
}

fn listening(call: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    while let Err(error) = TcpStream::connect(call) {
        if begun.elapsed() > crate::process::START_DEADLINE {
            return Err(error).context("A does not listen");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn exchange(stream: &mut TcpStream, shape: Shape) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    if shape == Shape::Tcp {
        stream.write_all(&ECHO)?;
        let mut answer = [0; 64];
        stream.read_exact(&mut answer)?;
        ensure!(answer == ECHO[..], "an echo with other bytes");
        return Ok(());
    }
    stream.write_all(&HTTP_REQUEST)?;
    let mut held = Vec::new();
    let mut piece = [0; 4096];
    while http_answer(&held)?.is_none() {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "closed before the answer");
        held.extend_from_slice(&piece[..read]);
    }
    Ok(())
}

fn told(sample: Sample, plan: &Scenario) -> Sample {
    let both = sample.both().map_or(String::new(), |both| format!(", A+B {both:.2}"));
    let what = match sample.memory {
        Some(memory) => format!("idle {:?} KiB, per connection {:.2?} KiB", memory.idle, memory.slope),
        None => format!("{:.2}/s, p50 {:.0} us{both}, {} bad", sample.rate, sample.latency_us[0], sample.bad),
    };
    eprintln!("{} #{} {}: {what}", plan.name, sample.repeat + 1, sample.peer);
    sample
}

fn is_idle(load: Load) -> bool {
    matches!(load, Load::Idle { .. })
}

fn sleep_until(when: Instant) {
    std::thread::sleep(when.saturating_duration_since(Instant::now()));
}

const GIB: f64 = (1u64 << 30) as f64;
/// Every so many idle connections one is asked whether it still answers.
const STILL_GOOD: usize = 50;
