//! The log as a whole: what is written, what is not, what is dropped.

use super::*;
use crate::metrics::edge::Direction;
use std::sync::Condvar;
use weft_proxy_core::Reason;

/// An output that keeps what was written, and can be held up.
#[derive(Clone, Default)]
struct Kept(Arc<(Mutex<Written>, Condvar)>);

/// What was written, how many writes began, and whether they are held up.
type Written = (Vec<u8>, usize, bool);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.0.lock().unwrap();
        kept.1 += 1;
        self.0.1.notify_all();
        while kept.2 {
            kept = self.0.1.wait(kept).unwrap();
        }
        kept.0.extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn hold(&self, held: bool) {
        self.0.0.lock().unwrap().2 = held;
        self.0.1.notify_all();
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let kept = self.0.0.lock().unwrap();
        std::str::from_utf8(&kept.0)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until a write began.
    fn wait_for_write(&self) {
        let kept = self.0.0.lock().unwrap();
        let (_kept, late) = self.0.1.wait_timeout_while(kept, Duration::from_secs(30), |k| k.1 == 0).unwrap();
        assert!(!late.timed_out(), "nothing was written");
    }
}

fn entry(path: &str, status: u16) -> Box<Entry> {
    let mut entry = Entry::blank();
    entry.direction = Direction::Outbound;
    entry.method = Some(http::Method::GET);
    entry.version = Some(http::Version::HTTP_11);
    entry.path.push_str(path);
    entry.status = http::StatusCode::from_u16(status).ok();
    entry
}

fn started(mode: Mode) -> (Kept, Arc<Metrics>, Sheet, Writer) {
    let (out, metrics) = (Kept::default(), Arc::new(Metrics::default()));
    let (log, writer) = AccessLog::start(Box::new(out.clone()), Arc::clone(&metrics)).unwrap();
    log.set(Policy::of(mode));
    let sheet = log.sheet(Arc::clone(&metrics));
    (out, metrics, sheet, writer)
}

#[test]
fn a_line_arrives_without_anybody_asking() {
    let (out, _, sheet, writer) = started(Mode::All);
    sheet.write(&entry("/items", 200), Moment(5_000_000), &Clock::start());
    out.wait_for_write();
    writer.finish();
    let lines = out.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["http.path"], "/items");
    assert_eq!(lines[0]["http.status"], 200);
    assert_eq!(lines[0]["duration_ms"], 5.0);
    assert_eq!(lines[0]["direction"], "outbound");
}

#[test]
fn errors_only_leaves_out_what_went_well_and_what_the_configuration_answered() {
    let (out, _, sheet, writer) = started(Mode::Errors);
    let clock = Clock::start();
    sheet.write(&entry("/fine", 200), Moment(1), &clock);
    sheet.write(&entry("/missing", 404), Moment(1), &clock);
    let mut redirected = entry("/moved", 301);
    redirected.reason = Some(Reason::ConfigReply);
    sheet.write(&redirected, Moment(1), &clock);
    let mut denied = entry("/denied", 403);
    denied.reason = Some(Reason::DeniedByPolicy);
    sheet.write(&denied, Moment(1), &clock);
    sheet.write(&entry("/broken", 500), Moment(1), &clock);
    let mut grpc = entry("/pkg.Service/Call", 200);
    grpc.grpc = Some(14);
    sheet.write(&grpc, Moment(1), &clock);
    writer.finish();
    let paths: Vec<_> =
        out.lines().iter().map(|line| line["http.path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/denied", "/broken", "/pkg.Service/Call"]);
    assert_eq!(out.lines()[0]["flags"], "UAEX");
}

#[test]
fn an_output_that_is_stuck_costs_lines_and_not_time() {
    let (out, metrics, sheet, writer) = started(Mode::All);
    let clock = Clock::start();
    out.hold(true);
    sheet.write(&entry("/first", 200), Moment(1), &clock);
    out.wait_for_write();
    let long = entry(&"x".repeat(1_000), 200);
    for _ in 0..3_000 {
        sheet.write(&long, Moment(1), &clock);
    }
    let dropped = metrics.plain().dropped(Dropped::LogLine).read();
    assert!((1_000..2_900).contains(&dropped), "{dropped}");
    out.hold(false);
    writer.finish();
    assert_eq!(out.lines().len() as u64 + dropped, 3_001, "every line is written or counted");
}

#[test]
fn many_threads_write_whole_lines() {
    let (out, metrics, _sheet, writer) = started(Mode::All);
    let log = writer.log.clone();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sheet = log.sheet(Arc::clone(&metrics));
            scope.spawn(move || {
                let clock = Clock::start();
                for n in 0..500 {
                    sheet.write(&entry(&format!("/{thread}/{n}"), 200), Moment(1), &clock);
                }
            });
        }
    });
    writer.finish();
    let paths: std::collections::HashSet<_> =
        out.lines().iter().map(|line| line["http.path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths.len(), 2_000);
}

/// A request of which everything is known.
fn full() -> Box<Entry> {
    use crate::metrics::edge::{Edge, EdgeLabels, Party, Protocol, Security};
    use weft_proxy_core::{Identity, Name};
    let party = |name: &str| Party {
        workload: name.into(),
        namespace: "shop".into(),
        identity: Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).ok(),
    };
    let labels = EdgeLabels {
        direction: Direction::Outbound,
        protocol: Protocol::Grpc,
        security: Security::MutualTls,
        source: party("cart"),
        destination: party("catalog"),
        service: Name::from("shop/catalog:80"),
        route: Name::from("shop/catalog"),
    };
    let edge: Arc<Edge> = Metrics::default().edge(0, &labels);
    let mut entry = entry("/items", 503);
    (entry.protocol, entry.edge) = (Protocol::Grpc, Some(edge));
    entry.query.push_str("page=2&token=*");
    entry.authority.push_str("catalog.shop:80");
    entry.fields.push(("tenant".into(), "say \"a\"".to_owned()));
    (entry.reason, entry.grpc, entry.probe) =
        (Some(Reason::NoEndpoint), Some(14), Some(weft_proxy_core::Probe::Http));
    (entry.policy, entry.rule, entry.backend) =
        (Some("shop/p#1".into()), Some("0".into()), Some("shop/catalog-v1:80".into()));
    let address = |text: &str| text.parse().ok();
    (entry.client, entry.destination) = (address("[fd00::7]:4000"), address("10.96.0.7:80"));
    (entry.endpoint, entry.attempts) = (address("10.0.0.9:8080"), 2);
    (entry.sent, entry.first_byte) = (Some(Moment(2_000_000)), Some(Moment(3_500_000)));
    entry.trace = crate::trace::Sampler::seeded(
        {
            let sampling = Arc::new(crate::trace::Sampling::default());
            sampling.set(1_000_000, 0);
            sampling
        },
        1,
    )
    .decide_connection(0, Moment(0));
    entry
}

fn line_of(entry: &Entry, policy: Policy) -> serde_json::Value {
    let (out, _, sheet, writer) = started(Mode::All);
    sheet.log.set(policy);
    sheet.write(entry, Moment(5_000_000), &Clock::start());
    writer.finish();
    out.lines().remove(0)
}

#[test]
fn every_field_of_the_page_is_written_and_no_other() {
    let line = line_of(&full(), Policy::of(Mode::All));
    let names: std::collections::BTreeSet<_> =
        line.as_object().unwrap().keys().map(|name| name.replace("header.tenant", "header.NAME")).collect();
    let known: std::collections::BTreeSet<_> =
        fields::ALL.iter().map(|field| field.weft.to_owned()).collect();
    assert_eq!(names, known);
    assert_eq!((&line["own_ms"], &line["upstream_ms"]), (&2.0.into(), &1.5.into()));
    assert_eq!(
        (&line["http.query"], &line["header.tenant"]),
        (&"page=2&token=*".into(), &"say \"a\"".into())
    );
}

#[test]
fn the_elastic_common_schema_has_its_own_names_for_all_of_them() {
    let line = line_of(&full(), Policy { format: Format::Ecs, ..Policy::of(Mode::All) });
    let line = line.as_object().unwrap();
    for field in fields::ALL {
        let name = field.ecs.replace("labels.NAME", "labels.tenant");
        let there = match name.as_str() {
            "source" | "destination" => {
                line.contains_key(&format!("{name}.ip")) && line[&format!("{name}.port")].is_u64()
            }
            name => line.contains_key(name),
        };
        assert!(there, "{name} in {line:?}");
    }
    assert_eq!((&line["source.ip"], &line["event.duration"]), (&"fd00::7".into(), &5_000_000.into()));
    assert_eq!((&line["event.outcome"], &line["ecs.version"]), (&"failure".into(), &"8.11.0".into()));
}

#[test]
fn the_page_of_fields_is_as_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access-log.md");
    if std::env::var("WEFT_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path, fields::page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), fields::page(), "WEFT_GOLDEN=write writes it");
}

#[test]
fn of_what_went_well_a_share_is_written_and_of_refusals_all() {
    let (out, _, sheet, writer) = started(Mode::All);
    sheet.log.set(Policy { ppm: 100_000, ..Policy::of(Mode::All) });
    let clock = Clock::start();
    for _ in 0..100 {
        sheet.write(&entry("/fine", 200), Moment(1), &clock);
        sheet.write(&entry("/broken", 500), Moment(1), &clock);
    }
    writer.finish();
    let lines = out.lines();
    let of = |path: &str| lines.iter().filter(|line| line["http.path"] == path).count();
    assert_eq!((of("/fine"), of("/broken")), (10, 100));
}
