//! The ledger: closed exactly once, whatever happens, and counted where it belongs.

use super::connection::ConnectionRecord;
use super::*;
use crate::access_log::{Mode, Policy, Writer};
use crate::metrics::edge::{Party, Security};
use crate::metrics::render;
use http::StatusCode;
use tokio::sync::mpsc;
use weft_proxy_core::Name;

struct Bench {
    telemetry: Telemetry,
    ledger: Ledger,
    finished: mpsc::Receiver<Finished>,
    written: Arc<std::sync::Mutex<Vec<u8>>>,
    writer: Option<Writer>,
}

#[derive(Clone)]
struct Out(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn bench(sampled: bool) -> Bench {
    let metrics = Arc::new(Metrics::default());
    let written = Arc::default();
    let (log, writer) = AccessLog::start(Box::new(Out(Arc::clone(&written))), Arc::clone(&metrics)).unwrap();
    log.set(Policy::of(Mode::All));
    let (spans, finished) = Spans::queue();
    let sampling = Arc::new(Sampling::default());
    sampling.set(if sampled { 1_000_000 } else { 0 }, 0);
    let (taps, decisions, signs_all) = Default::default();
    let counts_traffic = true;
    let telemetry = Telemetry {
        clock: Clock::start(),
        metrics,
        log,
        spans,
        sampling,
        taps,
        decisions,
        signs_all,
        counts_traffic,
    };
    let ledger = Ledger::new(&telemetry, 0);
    Bench { telemetry, ledger, finished, written, writer: Some(writer) }
}

impl Bench {
    fn open(&self, protocol: Protocol, headers: &HeaderMap) -> Record {
        let uri = Uri::from_static("http://catalog.shop/items/7?token=secret");
        let head = Head { protocol, method: &Method::GET, uri: &uri, version: Version::HTTP_11, headers };
        self.ledger.open(Direction::Outbound, head, None, Moment(1_000))
    }

    fn edge(&self, protocol: Protocol) -> Arc<Edge> {
        self.ledger.edge(&EdgeLabels {
            direction: Direction::Outbound,
            protocol,
            security: Security::MutualTls,
            source: Party::unknown(),
            destination: Party::unknown(),
            service: Name::from("shop/catalog:80"),
            route: Name::from("shop/catalog"),
        })
    }

    fn page(&self) -> String {
        let format = weft_exposition::Format::OpenMetrics;
        String::from_utf8(render::page(&self.telemetry.metrics, format)).unwrap()
    }

    fn lines(&mut self) -> Vec<serde_json::Value> {
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        let written = self.written.lock().unwrap();
        std::str::from_utf8(&written)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Requests counted, by status and reason.
fn counted(page: &str) -> Vec<(String, String, u64)> {
    let label = |row: &str, name: &str| {
        let (_, rest) = row.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    page.lines()
        .filter(|line| line.starts_with("weft_requests_total{"))
        .map(|row| {
            (
                label(row, "response_code"),
                label(row, ",reason"),
                row.rsplit_once(' ').unwrap().1.parse().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_closed_record_is_counted_logged_and_not_closed_again() {
    let mut bench = bench(false);
    let edge = bench.edge(Protocol::Http);
    let mut record = bench.open(Protocol::Http, &HeaderMap::new());
    record.plan(&Name::from("rule-1"), &Name::from("shop/catalog:80"));
    assert_eq!(record.attempt(&edge, "10.0.0.1:80".parse().unwrap(), Moment(2_000)), None);
    record.answered(StatusCode::OK, &HeaderMap::new(), Moment(1_501_000));
    record.carried(7, 11);
    record.close(Ending::Complete, Moment(3_001_000));
    assert_eq!(counted(&bench.page()), [("200".into(), String::new(), 1)]);
    let lines = bench.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert_eq!(line["http.path"], "/items/7", "no query");
    assert_eq!(line["http.host"], "catalog.shop");
    assert_eq!((&line["bytes.up"], &line["bytes.down"]), (&7.into(), &11.into()));
    assert_eq!((&line["duration_ms"], &line["first_byte_ms"]), (&3.0.into(), &1.5.into()));
    assert_eq!(line["dst.endpoint"], "10.0.0.1:80");
    assert_eq!((&line["route"], &line["rule"]), (&"shop/catalog".into(), &"rule-1".into()));
    assert!(line.get("reason").is_none() && !line.to_string().contains("secret"), "{line}");
}

#[test]
fn a_dropped_record_closes_once_as_cancelled() {
    let mut bench = bench(false);
    drop(bench.open(Protocol::Http, &HeaderMap::new()));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _record = bench.open(Protocol::Http, &HeaderMap::new());
        panic!("a room fell over");
    }));
    assert!(panicked.is_err());
    assert_eq!(counted(&bench.page()), [("0".into(), "cancelled".into(), 2)]);
    assert!(bench.page().contains("weft_refusals_total{direction=\"outbound\",reason=\"cancelled\""));
    let lines = bench.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["reason"] == "cancelled" && line["flags"] == "DC"));
}

#[test]
fn the_first_reason_stays() {
    let bench = bench(false);
    let mut record = bench.open(Protocol::Http, &HeaderMap::new());
    record.reason(Reason::DeniedByPolicy);
    record.answered(StatusCode::FORBIDDEN, &HeaderMap::new(), Moment(2_000));
    drop(record);
    assert_eq!(counted(&bench.page()), [("403".into(), "denied_by_policy".into(), 1)]);
}

#[test]
fn used_again_an_entry_remembers_nothing() {
    let mut bench = bench(false);
    let edge = bench.edge(Protocol::Http);
    let mut first = bench.open(Protocol::Http, &HeaderMap::new());
    first.attempt(&edge, "10.0.0.1:80".parse().unwrap(), Moment(2_000));
    first.policy(&Name::from("shop/only-cart"));
    first.carried(999, 999);
    first.close(Ending::Failed(Reason::UpstreamReset), Moment(3_000));
    let second = bench.open(Protocol::Grpc, &HeaderMap::new());
    second.close(Ending::Complete, Moment(4_000));
    let line = bench.lines().remove(1);
    for absent in ["reason", "policy", "attempts", "dst.endpoint", "route", "http.status"] {
        assert!(line.get(absent).is_none(), "{absent} in {line}");
    }
    assert_eq!(line["bytes.up"], 0, "a body of an earlier request counts nowhere");
}

#[test]
fn an_unreadable_head_is_counted_too() {
    let mut bench = bench(false);
    let started = bench.ledger.clock().now();
    bench.ledger.unreadable(Direction::Inbound, None, Reason::MalformedRequest, started);
    assert_eq!(counted(&bench.page()), [("400".into(), "malformed_request".into(), 1)]);
    assert_eq!(bench.lines()[0]["blame"], "downstream");
}

#[test]
fn a_retry_is_one_request_with_two_attempts() {
    let mut bench = bench(true);
    let edge = bench.edge(Protocol::Http);
    let mut record = bench.open(Protocol::Http, &HeaderMap::new());
    let request = *record.context().unwrap();
    let first = record.attempt(&edge, "10.0.0.1:80".parse().unwrap(), Moment(2_000)).unwrap();
    record.attempt_over(None, Some(Reason::ConnectRefused), Moment(3_000));
    let second = record.attempt(&edge, "10.0.0.2:80".parse().unwrap(), Moment(4_000)).unwrap();
    record.answered(StatusCode::OK, &HeaderMap::new(), Moment(5_000));
    record.close(Ending::Complete, Moment(6_000));
    assert_eq!((first.parent, second.parent), (Some(request.span), Some(request.span)));
    assert!(first.span != second.span && first.trace == request.trace);
    let page = bench.page();
    assert_eq!(counted(&page), [("200".into(), String::new(), 1)]);
    assert!(
        page.lines().any(|line| line.starts_with("weft_retries_total{") && line.ends_with(" 1")),
        "{page}"
    );
    let finished = bench.finished.try_recv().unwrap();
    assert_eq!((finished.entry.tries.len(), finished.entry.events.len()), (2, 1));
    assert!(bench.finished.try_recv().is_err(), "told once");
}

#[test]
fn a_full_queue_costs_spans_and_not_requests() {
    let bench = bench(true);
    for _ in 0..3_000 {
        bench.open(Protocol::Http, &HeaderMap::new()).close(Ending::Complete, Moment(2_000));
    }
    let dropped = bench.telemetry.metrics.plain().dropped(Dropped::SpanQueue).read();
    assert_eq!(dropped, 3_000 - 2_048);
    assert_eq!(counted(&bench.page())[0].2, 3_000);
}

#[test]
fn the_grpc_status_of_the_trailers_is_the_answers() {
    let mut bench = bench(false);
    let mut record = bench.open(Protocol::Grpc, &HeaderMap::new());
    record.answered(StatusCode::OK, &HeaderMap::new(), Moment(2_000));
    record.trailers(&HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("14"),
    )]));
    record.close(Ending::Complete, Moment(3_000));
    assert_eq!(bench.lines()[0]["grpc.status"], 14);
    assert!(bench.page().contains("grpc_response_status=\"14\""));
}

#[test]
fn a_relayed_connection_opens_and_closes_once() {
    let mut bench = bench(false);
    let edge = bench.edge(Protocol::Tcp);
    let mut relayed = bench.ledger.connection(Direction::Outbound, None, Moment(0));
    relayed.relay(&edge, Some("10.0.0.1:5432".parse().unwrap()), Moment(10));
    relayed.carried(3, 4);
    let mut cut = bench.ledger.connection(Direction::Outbound, None, Moment(0));
    cut.relay(&edge, None, Moment(10));
    drop(cut);
    bench.ledger.connection(Direction::Outbound, None, Moment(0)).hand_to_requests();
    relayed.close(Ending::Complete, Moment(2_000_000));
    let page = bench.page();
    for (name, value) in [
        ("weft_tcp_connections_opened_total{", " 2"),
        ("weft_tcp_connections_closed_total{", " 2"),
        ("weft_tcp_received_bytes_total{", " 3"),
        ("weft_tcp_sent_bytes_total{", " 4"),
    ] {
        assert!(page.lines().any(|l| l.starts_with(name) && l.ends_with(value)), "{name} in\n{page}");
    }
    let lines = bench.lines();
    assert_eq!(lines.len(), 2, "a connection that carried HTTP has no line of its own");
    assert_eq!((&lines[0]["kind"], &lines[0]["reason"]), (&"connection".into(), &"cancelled".into()));
    assert_eq!((&lines[1]["bytes.down"], lines[1].get("reason")), (&4.into(), None));
}

#[test]
fn a_record_can_move_between_threads() {
    fn check<T: Send + 'static>() {}
    check::<Record>();
    check::<ConnectionRecord>();
    check::<Ledger>();
    assert!(size_of::<Record>() <= 16, "a record is carried through every future: {}", size_of::<Record>());
}

#[test]
fn a_closed_record_is_found_by_its_name_and_its_entry_is_used_again_later() {
    let bench = bench(false);
    let named = HeaderMap::from_iter([(id::X_REQUEST_ID, http::HeaderValue::from_static("order-17"))]);
    let mut record = bench.open(Protocol::Http, &named);
    record.edge(&bench.edge(Protocol::Http));
    record.policy(&Name::from("shop/only-cart#1"));
    record.close(Ending::Failed(Reason::DeniedByPolicy), Moment(3_000));
    for _ in 0..2_000 {
        let mut fine = bench.open(Protocol::Http, &HeaderMap::new());
        fine.answered(StatusCode::OK, &HeaderMap::new(), Moment(4_000));
        fine.close(Ending::Complete, Moment(4_000));
    }
    let found = bench.telemetry.decisions.find("order-17");
    assert_eq!(found.len(), 1);
    let seen = &found[0];
    assert_eq!(seen.entry.policy, Some(Name::from("shop/only-cart#1")));
    assert_eq!((seen.entry.reason, seen.ended), (Some(Reason::DeniedByPolicy), Moment(3_000)));
    assert_eq!(seen.labels().unwrap().service, Name::from("shop/catalog:80"));
    assert!(seen.entry.edge.is_none(), "a refusal that is kept for long keeps no series alive");
}

#[test]
fn a_request_that_is_seen_by_a_person_carries_its_name_onward() {
    let bench = bench(false);
    let mut fields = HeaderMap::new();
    let record = bench.open(Protocol::Http, &HeaderMap::new());
    record.stamp(&mut fields);
    let name = fields[id::X_REQUEST_ID].to_str().unwrap().to_owned();
    drop(record);
    assert_eq!(bench.telemetry.decisions.find(&name).len(), 1);
    bench.telemetry.log.set(Policy::of(Mode::Errors));
    fields.clear();
    bench.open(Protocol::Http, &HeaderMap::new()).stamp(&mut fields);
    assert!(fields.is_empty(), "what nobody looks at costs no field");
}

#[test]
fn a_refusal_of_the_other_sidecar_is_found_by_the_name_it_gave() {
    let bench = bench(false);
    let mut record = bench.open(Protocol::Http, &HeaderMap::new());
    let answer = HeaderMap::from_iter([(id::WEFT_REQUEST_ID, http::HeaderValue::from_static("theirs"))]);
    record.answered(StatusCode::FORBIDDEN, &answer, Moment(2_000));
    record.close(Ending::Complete, Moment(3_000));
    assert_eq!(bench.telemetry.decisions.find("theirs").len(), 1);
}

#[test]
fn an_error_leaves_a_span_of_its_own_although_its_trace_is_not_kept() {
    let mut bench = bench(false);
    bench.telemetry.sampling.follow(Some(&crate::trace::Rules { errors: 1, ..Default::default() }));
    let edge = bench.edge(Protocol::Http);
    for (reason, status) in [
        (None, StatusCode::OK),
        (None, StatusCode::NOT_FOUND),
        (Some(Reason::ConfigReply), StatusCode::FOUND),
        (Some(Reason::DeniedByPolicy), StatusCode::FORBIDDEN),
        (None, StatusCode::BAD_GATEWAY),
    ] {
        let mut record = bench.open(Protocol::Http, &HeaderMap::new());
        record.edge(&edge);
        reason.into_iter().for_each(|reason| record.reason(reason));
        record.answered(status, &HeaderMap::new(), Moment(2_000));
        record.close(Ending::Complete, Moment(3_000));
    }
    drop(bench.open(Protocol::Http, &HeaderMap::new()));
    let kept = bench.finished.try_recv().unwrap().entry;
    assert_eq!((kept.reason, kept.path.as_str()), (Some(Reason::DeniedByPolicy), "/items/7"));
    assert!(bench.finished.try_recv().is_err(), "one a second, and a client that left is no error");
    let lines = bench.lines();
    let told: Vec<_> = lines.iter().filter(|line| line["trace.id"].is_string()).collect();
    assert_eq!((told.len(), &told[0]["reason"]), (1, &"denied_by_policy".into()), "the log leads to it");
}
