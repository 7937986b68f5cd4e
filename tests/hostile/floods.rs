//! Peers that send without end, or never read: the connection ends, the others are served.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::case::{rig, rig_with};
use weft_tests::raw::Rig;
use weft_tests::raw::client::Client;
use weft_tests::raw::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, Http2, Outcome, PING,
    PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame, get,
};

/// Sends `each` over and over until the sidecar has had enough, and gives how it said so.
fn flood(rig: &Rig, first: &[u8], each: &[u8]) -> Outcome {
    let mut http2 = Http2::connect(rig.outbound);
    http2.send(first);
    let batch = each.repeat(100);
    for _ in 0..200 {
        if !http2.send(&batch) {
            break;
        }
    }
    let outcome = http2.ended();
    rig.serves(rig.outbound);
    outcome
}

#[test]
fn control_frames_without_progress_end_the_connection_with_enhance_your_calm() {
    let rig = rig();
    let calm = Outcome::Goaway(ENHANCE_YOUR_CALM);
    let priority = [0, 0, 0, 0, 10];
    for (name, each) in [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("PING acknowledged", frame(PING, 1, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &priority)),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x77, 0, 0, b"whatever")),
        ("unknown, empty", frame(0x77, 0, 0, b"")),
    ] {
        assert_eq!(flood(&rig, &[], &each), calm, "{name}");
    }
    rig.until_limit_hit("h2_control_frames");
}

#[test]
fn requests_pay_for_control_frames() {
    let rig = rig();
    let mut http2 = Http2::connect(rig.outbound);
    for n in 0..10 {
        let stream = n * 2 + 1;
        http2.send(&frame(PING, 0, 0, &[7; 8]).repeat(500));
        http2.send(&get(stream, "/", &[]));
        assert!(matches!(http2.outcome(stream), Outcome::Status(_)), "request {n}");
    }
}

#[test]
fn floods_of_streams_and_field_sections_end_the_connection() {
    let rig = rig();
    // Rapid reset: each request is given up at once.
    let mut http2 = Http2::connect(rig.outbound);
    let mut sent = 0;
    for n in 0..20_000 {
        let stream = n * 2 + 1;
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        sent = n;
        if !http2.send(&[get(stream, "/reset", &[]), reset].concat()) {
            break;
        }
    }
    assert!(matches!(http2.ended(), Outcome::Goaway(_) | Outcome::Closed), "after {sent}");
    rig.serves(rig.outbound);
    // CONTINUATION without end.
    let head = frame(HEADERS, END_STREAM, 1, &fields(&[(":method", "GET")]));
    let outcome = flood(&rig, &head, &frame(CONTINUATION, 0, 1, &fields(&[("x", "y")])));
    assert!(matches!(outcome, Outcome::Goaway(_) | Outcome::Closed), "{outcome:?}");
    let outcome = flood(&rig, &head, &frame(CONTINUATION, 0, 1, &[]));
    assert!(matches!(outcome, Outcome::Goaway(_) | Outcome::Closed), "{outcome:?}");
    // Empty DATA without end.
    let head = fields(&[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")]);
    let outcome = flood(&rig, &frame(HEADERS, END_HEADERS, 1, &head), &frame(DATA, 0, 1, &[]));
    assert!(matches!(outcome, Outcome::Goaway(_) | Outcome::Closed), "{outcome:?}");
}

#[test]
fn answers_that_nobody_reads_are_bounded_in_memory_and_time() {
    let rig = rig_with(&["--stall-timeout", "3s"]);
    let body = vec![b'x'; 1 << 20];
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat();
    rig.application.says(&answer);
    let before = rig.memory();
    // Windows as wide as they can be, and then not one byte is read.
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    let wide = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]);
    let held: Vec<Http2> = (0..4)
        .map(|_| {
            let mut http2 = Http2::connect(rig.outbound);
            http2.send(&[&window[..], &wide[..]].concat());
            for n in 0..250 {
                http2.send(&get(n * 2 + 1, "/", &[]));
            }
            http2
        })
        .collect();
    let mut most = 0;
    while rig.limit_hit("stall_timeout") < 4 {
        most = most.max(rig.memory());
        rig.serves(rig.outbound);
    }
    drop(held);
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 100, "1000 unread answers of 1 MiB took {grown} MiB");
}

#[test]
fn a_stream_without_window_is_reset_and_its_neighbours_go_on() {
    let rig = rig_with(&["--stall-timeout", "2s"]);
    rig.application.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
    for at in [rig.outbound, rig.inbound] {
        let mut http2 = Http2::connect(at);
        // Streams begin without window; the second one gets some.
        http2.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        http2.send(&[get(1, "/", &[]), get(3, "/", &[])].concat());
        http2.send(&frame(WINDOW_UPDATE, 0, 3, &[0, 0, 1, 0]));
        let (mut reset, mut whole) = (None, false);
        while reset.is_none() {
            let frame = http2.receive().expect("the connection goes on");
            whole |= frame.kind == DATA && frame.stream == 3 && frame.flags & END_STREAM != 0;
            assert!(frame.kind != GOAWAY, "{frame:?}");
            if frame.kind == RST_STREAM {
                reset = Some((frame.stream, frame.code()));
            }
        }
        assert_eq!(reset.map(|(stream, _)| stream), Some(1));
        assert!(whole, "the neighbour was answered");
        http2.send(&get(5, "/", &[]));
        http2.send(&frame(WINDOW_UPDATE, 0, 5, &[0, 0, 1, 0]));
        let end = std::iter::from_fn(|| http2.receive())
            .find(|frame| frame.stream == 5 && frame.flags & END_STREAM != 0);
        assert_eq!(end.map(|frame| frame.kind), Some(DATA));
    }
    rig.until_limit_hit("stall_timeout");
}

#[test]
fn clients_that_do_not_read_hold_no_more_than_the_limit_together() {
    let rig = rig_with(&["--max-held-bytes", "1000000"]);
    let body = vec![b'x'; 16 << 20];
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat();
    rig.application.says(&answer);
    let held: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = Client::connect(rig.outbound);
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    rig.until_limit_hit("held_bytes");
    rig.serves(rig.outbound);
    drop(held);
}

#[test]
fn an_http1_client_that_does_not_read_is_given_up() {
    let rig = rig_with(&["--stall-timeout", "2s"]);
    let body = vec![b'x'; 64 << 20];
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat();
    rig.application.says(&answer);
    let mut client = Client::connect(rig.outbound);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.until_limit_hit("stall_timeout");
    assert!(client.rest().len() < answer.len());
    rig.serves(rig.outbound);
}

/// An HTTP/2 application that says its settings, then does `then` with every chunk that it reads.
fn http2_application(
    rig: &Rig,
    settings: &'static [u8],
    each: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    rig.application_h2.greets(Arc::new(move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(&frame(SETTINGS, 0, 0, settings));
        let mut client = Client::over(stream.try_clone().unwrap());
        if client.exactly(PREFACE.len()).is_none() {
            return false;
        }
        while let Some(read) = weft_tests::raw::http2::read(&mut client) {
            if read.kind == SETTINGS
                && read.flags & 1 == 0
                && stream.write_all(&frame(SETTINGS, 1, 0, &[])).is_err()
            {
                break;
            }
            if read.kind == HEADERS && stream.write_all(&each(read.stream)).is_err() {
                break;
            }
        }
        false
    }));
    connections
}

fn ask(rig: &Rig, at: std::net::SocketAddr) -> Outcome {
    let mut http2 = Http2::connect(at);
    http2.send(&get(1, "/", &[]));
    let outcome = http2.outcome(1);
    rig.serves(rig.inbound);
    outcome
}

#[test]
fn an_http2_application_that_allows_no_stream_is_a_bad_gateway_not_a_hang() {
    let rig = rig();
    let connections = http2_application(&rig, &[0, 3, 0, 0, 0, 0], |_| Vec::new());
    for at in [rig.inbound_h2, rig.outbound_h2] {
        let outcome = ask(&rig, at);
        assert!(matches!(outcome, Outcome::Status(502..=504)), "{outcome:?}");
    }
    assert!(connections.load(Ordering::Relaxed) >= 2);
    // It is served again as soon as it allows streams.
    http2_application(&rig, &[], |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &[0x88]));
    for at in [rig.inbound_h2, rig.outbound_h2] {
        assert_eq!(ask(&rig, at), Outcome::Status(200));
    }
}

#[test]
fn an_http2_application_that_always_leaves_is_a_bad_gateway_not_a_hang() {
    let rig = rig();
    http2_application(&rig, &[], |_| frame(GOAWAY, 0, 0, &[0; 8]));
    for at in [rig.inbound_h2, rig.outbound_h2] {
        let outcome = ask(&rig, at);
        assert!(matches!(outcome, Outcome::Status(502..=504)), "{outcome:?}");
    }
}

#[test]
fn an_http2_application_that_floods_is_cut_off() {
    let rig = rig();
    let interim = |stream| {
        let head = fields(&[(":status", "103"), ("link", "</a>")]);
        frame(HEADERS, END_HEADERS, stream, &head).repeat(100_000)
    };
    http2_application(&rig, &[], interim);
    for at in [rig.inbound_h2, rig.outbound_h2] {
        let outcome = ask(&rig, at);
        assert!(matches!(outcome, Outcome::Status(502)), "interim: {outcome:?}");
    }
    rig.until_limit_hit("interim");
    http2_application(&rig, &[], |_| frame(PING, 0, 0, &[0; 8]).repeat(100_000));
    for at in [rig.inbound_h2, rig.outbound_h2] {
        let outcome = ask(&rig, at);
        assert!(matches!(outcome, Outcome::Status(502)), "pings: {outcome:?}");
    }
    rig.until_limit_hit("h2_control_frames");
    http2_application(&rig, &[], |stream| frame(DATA, END_STREAM, stream, b"before the head"));
    for at in [rig.inbound_h2, rig.outbound_h2] {
        let outcome = ask(&rig, at);
        assert!(matches!(outcome, Outcome::Status(502)), "data first: {outcome:?}");
    }
}
