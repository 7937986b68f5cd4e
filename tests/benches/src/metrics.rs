//! What metrics and the access log cost: CPU of the thread that writes a page, by form, of counting one request, and
//! of writing its line.
//! Before this: `bench` was asked for `metrics`. No process and no network: the shipped library in the rig's own process.
//!
//! Invariant: time is the thread's own CPU time, so that a busy machine does not change the figures by more than its
//! cold caches do.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use http::{Method, StatusCode, Version};
use rustix::time::{ClockId, clock_gettime};
use weft_exposition::Format;
use weft_proxy::access_log::{
    Format as Dialect,
    line::{self, Style},
};
use weft_proxy::metrics::Metrics;
use weft_proxy::metrics::edge::{Direction, EdgeLabels, Outcome, Party, Protocol, Security};
use weft_proxy::metrics::render;
use weft_proxy::record::{clock::Clock, entry::Entry};
use weft_proxy_core::{Identity, Moment, Name};

/// The word that asks for this.
pub(crate) const METRICS: &str = "metrics";

/// Measures what a scrape and what counting a request cost a sidecar.
#[derive(Parser)]
#[command(name = "weft-bench metrics")]
pub(crate) struct Args {
    /// Series on the page: rows, each bucket of a histogram being one.
    #[arg(long, default_value_t = 5_000)]
    series: usize,
    /// Pages that are written; the median counts.
    #[arg(long, default_value_t = 101)]
    pages: usize,
    /// Fails if a goal is missed.
    #[arg(long)]
    gate: bool,
}

/// Runs it; false when, gated, a goal was missed.
///
/// # Errors
/// The arguments make no sense, or nothing can be printed.
pub(crate) fn bench(args: &Args) -> Result<bool> {
    ensure!((1..=1_000_000).contains(&args.series) && args.pages > 0, "at least one series and one page");
    let metrics = Arc::new(Metrics::default());
    let edges = fill(&metrics, args.series);
    let mut text =
        format!("{edges} edges, {} rows\n\n| form | bytes | CPU |\n|---|---|---|\n", rows(&metrics));
    let mut slowest = Duration::ZERO;
    for (name, format) in [
        ("classic text", Format::Classic),
        ("OpenMetrics", Format::OpenMetrics),
        ("protobuf, native histograms", Format::Protobuf),
    ] {
        let mut times: Vec<Duration> =
            (0..args.pages).map(|_| timed(|| drop(black_box(render::page(&metrics, format))))).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        slowest = slowest.max(median);
        let bytes = render::page(&metrics, format).len();
        writeln!(text, "| {name} | {bytes} | {:.2} ms |", median.as_secs_f64() * 1e3)?;
    }
    writeln!(text, "\none request counted, with its sizes and its first byte: {:.1} ns", counting(&metrics))?;
    let (bytes, each) = logging(&metrics);
    writeln!(text, "one line of the access log, {bytes} bytes: {each:.1} ns")?;
    write!(std::io::stdout(), "{text}")?;
    let met = slowest < GOAL;
    if !met {
        eprintln!("goal missed: a page within {} ms of CPU", GOAL.as_millis());
    }
    Ok(met || !args.gate)
}

/// Source: agreed: a scrape every 15 s must not be felt by requests.
const GOAL: Duration = Duration::from_millis(20);

/// Edges as a real mesh has them, until the page has so many rows.
fn fill(metrics: &Arc<Metrics>, series: usize) -> usize {
    let mut edges = 0;
    while rows(metrics) < series {
        for _ in 0..10 {
            let edge = metrics.edge(0, &labels(edges));
            for (status, micros) in [(200, 900), (200, 2_700), (404, 400), (503, 30_000)] {
                edge.request(Outcome::new(status, None, None), Duration::from_micros(micros), 200, 4_000);
                edge.first_byte(Duration::from_micros(micros / 2));
            }
            edges += 1;
        }
    }
    edges
}

fn rows(metrics: &Arc<Metrics>) -> usize {
    let page = render::page(metrics, Format::Classic);
    page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")).count()
}

fn labels(number: usize) -> EdgeLabels {
    let party = |name: String| Party {
        identity: Identity::parse(&format!("spiffe://cluster.local/ns/production/sa/{name}")).ok(),
        workload: Name::from(name.as_str()),
        namespace: Name::from("production"),
    };
    EdgeLabels {
        direction: Direction::Outbound,
        protocol: Protocol::Http,
        security: Security::MutualTls,
        source: party("storefront".to_owned()),
        destination: party(format!("backend-{number}")),
        service: Name::from(format!("production/backend-{number}:8080").as_str()),
        route: Name::from(format!("production/backend-{number}-routes").as_str()),
    }
}

/// Nanoseconds of CPU to count one request.
fn counting(metrics: &Metrics) -> f64 {
    const REQUESTS: u32 = 2_000_000;
    let edge = metrics.edge(0, &labels(0));
    let outcome = Outcome::new(200, None, None);
    let took = timed(|| {
        for n in 0..REQUESTS {
            // Durations and sizes that differ, so that no branch is learned.
            let spread = n.wrapping_mul(2_654_435_761) >> 12;
            let time = Duration::from_nanos(u64::from(spread) * 10);
            edge.request(black_box(outcome), time, u64::from(spread & 0xfff), u64::from(spread));
            edge.first_byte(time / 2);
        }
    });
    took.as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

/// Bytes of a line of the access log, and nanoseconds of CPU to write it.
fn logging(metrics: &Metrics) -> (usize, f64) {
    const LINES: u32 = 1_000_000;
    /// Source: what gathers in 20 ms at 10,000 requests a second.
    const SHEET: usize = 200;
    let (entry, clock) = (entry(metrics), Clock::start());
    let style = Style { format: Dialect::Weft, clock: &clock };
    let mut sheet = Vec::new();
    let took = timed(|| {
        for n in 0..LINES {
            if (n as usize).is_multiple_of(SHEET) {
                black_box(&sheet);
                sheet.clear();
            }
            line::write(&mut sheet, black_box(&entry), Moment(u64::from(n) * 1_000), style);
        }
    });
    (sheet.len() / SHEET, took.as_secs_f64() * 1e9 / f64::from(LINES))
}

/// A gRPC call from one sidecar to another, as the caller's sidecar knows it at its end.
fn entry(metrics: &Metrics) -> Box<Entry> {
    let mut entry = Entry::blank();
    entry.direction = Direction::Outbound;
    entry.protocol = Protocol::Grpc;
    entry.version = Some(Version::HTTP_2);
    entry.method = Some(Method::POST);
    entry.path.push_str("/production.backend.v1.Items/List");
    entry.authority.push_str("backend-0.production.svc.cluster.local:8080");
    entry.status = Some(StatusCode::OK);
    entry.grpc = Some(0);
    entry.client = Some(SocketAddr::from(([10, 42, 7, 19], 48_312)));
    entry.destination = Some(SocketAddr::from(([10, 96, 112, 7], 8_080)));
    entry.endpoint = Some(SocketAddr::from(([10, 42, 3, 201], 8_080)));
    entry.edge = Some(metrics.edge(0, &labels(0)));
    entry.rule = Some(Name::from("items"));
    entry.backend = Some(Name::from("production/backend-0:8080"));
    (entry.sent, entry.first_byte) = (Some(Moment(40_000)), Some(Moment(900_000)));
    (entry.attempts, entry.up, entry.down) = (1, 105, 4_811);
    entry
}

/// CPU time of this thread for some work.
fn timed(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let began = now();
    work();
    now().saturating_sub(began)
}
