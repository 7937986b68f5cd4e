//! HTTP/2 by raw frames: heads that must not pass, and what an HTTP/1 application sees of the rest.

use super::case::{rig, rig_with, without_trace};
use weft_tests::raw::Rig;
use weft_tests::raw::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, Outcome, PREFACE, RST_STREAM, SETTINGS,
    fields, frame, get,
};

type Fields = &'static [(&'static str, &'static str)];

fn is_refused(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => status == 400 || status == 431,
        Outcome::Reset(_) | Outcome::Goaway(_) | Outcome::Closed => true,
    }
}

/// Tries whole heads on the door to the HTTP/1 application; nothing of them may arrive there.
fn refused(rig: &Rig, heads: &[(&str, Fields)]) {
    let mut wrong = Vec::new();
    for (name, head) in heads {
        let _ = rig.application.seen();
        let mut http2 = Http2::connect(rig.outbound);
        http2.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(head)));
        let outcome = http2.outcome(1);
        rig.serves(rig.outbound);
        let seen = rig.application.seen();
        if !is_refused(outcome) || !seen.is_empty() {
            wrong.push(format!("{name}: {outcome:?} {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_clean_request_reaches_an_application_of_either_version() {
    let rig = rig();
    let mut http2 = Http2::connect(rig.outbound);
    http2.send(&get(1, "/a%2Fb?q", &[("x", "y"), ("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers")]));
    assert_eq!(http2.outcome(1), Outcome::Status(200));
    let seen: Vec<String> = rig.application.seen().iter().map(|request| without_trace(request)).collect();
    assert_eq!(seen.len(), 1);
    let request = seen[0].to_ascii_lowercase();
    assert!(request.starts_with("get /a%2fb?q http/1.1\r\n"), "{request}");
    for line in ["host: clean", "x: y", "cookie: a=b; c=d", "te: trailers"] {
        assert_eq!(request.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {request}");
    }
}

#[test]
fn a_request_names_exactly_one_authority() {
    let rig = rig();
    const BASE: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let with = |more: &[(&'static str, &'static str)]| -> Fields { Vec::leak([&BASE[..], more].concat()) };
    refused(
        &rig,
        &[
            ("none", with(&[])),
            ("two hosts", with(&[("host", "a"), ("host", "b")])),
            ("twice the same", with(&[("host", "a"), ("host", "a")])),
            ("contradiction", with(&[(":authority", "a"), ("host", "b")])),
            ("two authorities", with(&[(":authority", "a"), (":authority", "b")])),
            ("path", with(&[(":authority", "a/b")])),
            ("userinfo", with(&[(":authority", "me@a")])),
            ("query", with(&[(":authority", "a?b")])),
            ("blank", with(&[(":authority", "a b")])),
            ("empty", with(&[(":authority", "")])),
            ("port of letters", with(&[(":authority", "a:b")])),
            ("line break", with(&[(":authority", "a\r\nx: y")])),
            ("bad host beside", with(&[(":authority", "a"), ("host", "a\tb")])),
        ],
    );
}

#[test]
fn a_target_is_whole_and_clean() {
    let rig = rig();
    refused(
        &rig,
        &[
            ("CONNECT to nothing", &[(":method", "CONNECT"), (":authority", "")]),
            ("CONNECT without authority", &[(":method", "CONNECT")]),
            ("CONNECT without port", &[(":method", "CONNECT"), (":authority", "a")]),
            ("CONNECT with a path", &[(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")]),
            ("no method", &[(":scheme", "http"), (":path", "/"), (":authority", "a")]),
            ("no path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
            ("empty path", &[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")]),
            (
                "relative path",
                &[(":method", "GET"), (":scheme", "http"), (":path", "a"), (":authority", "a")],
            ),
            ("no scheme", &[(":method", "GET"), (":path", "/"), (":authority", "a")]),
            (
                "another scheme",
                &[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")],
            ),
            ("asterisk", &[(":method", "GET"), (":scheme", "http"), (":path", "*"), (":authority", "a")]),
            ("dots", &[(":method", "GET"), (":scheme", "http"), (":path", "/a/../b"), (":authority", "a")]),
            ("NUL", &[(":method", "GET"), (":scheme", "http"), (":path", "/%00"), (":authority", "a")]),
            ("blank", &[(":method", "GET"), (":scheme", "http"), (":path", "/a b"), (":authority", "a")]),
            (
                "a request line",
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/ HTTP/1.1\r\nx: y"),
                    (":authority", "a"),
                ],
            ),
            (
                "method with a blank",
                &[(":method", "GET /x"), (":scheme", "http"), (":path", "/"), (":authority", "a")],
            ),
            (
                "a pseudo field late",
                &[(":method", "GET"), (":scheme", "http"), ("x", "y"), (":path", "/"), (":authority", "a")],
            ),
            (
                "an unknown pseudo field",
                &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), (":x", "y")],
            ),
            (
                "an answer's pseudo field",
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "a"),
                    (":status", "200"),
                ],
            ),
        ],
    );
}

#[test]
fn fields_that_http2_forbids_do_not_pass() {
    let rig = rig();
    const BASE: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let with = |name: &'static str, value: &'static str| -> Fields {
        Vec::leak([&BASE[..], &[(name, value)]].concat())
    };
    refused(
        &rig,
        &[
            ("connection", with("connection", "close")),
            ("keep-alive", with("keep-alive", "1")),
            ("proxy-connection", with("proxy-connection", "close")),
            ("transfer-encoding", with("transfer-encoding", "chunked")),
            ("upgrade", with("upgrade", "h2c")),
            ("te", with("te", "gzip")),
            ("upper case", with("X-Upper", "y")),
            ("blank in a name", with("x y", "z")),
            ("colon in a name", with("x:y", "z")),
            ("empty name", with("", "z")),
            ("NUL", with("x", "a\0b")),
            ("line break", with("x", "a\r\ny: z")),
            ("bare CR", with("x", "a\rb")),
            ("bare LF", with("x", "a\nb")),
            (
                "two lengths",
                Vec::leak([&BASE[..], &[("content-length", "0"), ("content-length", "1")]].concat()),
            ),
            ("a length of letters", with("content-length", "x")),
            ("a length without a body", with("content-length", "5")),
        ],
    );
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_does_not_arrive_whole() {
    let rig = rig();
    for (says, body) in [("2", "abc"), ("5", "abc")] {
        let mut http2 = Http2::connect(rig.outbound);
        let head = fields(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
            ("content-length", says),
        ]);
        http2.send(
            &[frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, body.as_bytes())].concat(),
        );
        let outcome = http2.outcome(1);
        assert!(outcome != Outcome::Status(200), "{says}: {outcome:?}");
        rig.serves(rig.outbound);
    }
}

#[test]
fn a_header_list_beyond_the_limit_is_refused() {
    let rig = rig_with(&["--max-header-bytes", "16384", "--max-headers", "50"]);
    let long = "y".repeat(30_000);
    let mut http2 = Http2::connect(rig.outbound);
    let block =
        fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("x", &long)]);
    let (first, second) = block.split_at(16_000);
    http2.send(&frame(HEADERS, END_STREAM, 1, first));
    http2.send(&frame(CONTINUATION, END_HEADERS, 1, second));
    assert!(is_refused(http2.outcome(1)));
    rig.serves(rig.outbound);
    let many: Vec<(String, &str)> = (0..200).map(|n| (format!("x{n}"), "y")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut http2 = Http2::connect(rig.outbound);
    http2.send(&get(1, "/", &many));
    let outcome = http2.outcome(1);
    assert!(is_refused(outcome), "200 fields: {outcome:?}");
    rig.serves(rig.outbound);
    assert!(rig.application.seen().is_empty());
}

#[test]
fn frames_out_of_place_end_the_connection_or_the_stream() {
    let rig = rig();
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x")),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, &[])),
        ("HEADERS on an even stream", frame(HEADERS, END_STREAM | END_HEADERS, 2, &get(1, "/", &[])[9..])),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &[])),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("RST_STREAM too short", frame(RST_STREAM, 0, 1, &[0])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS with a window too large", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("SETTINGS acknowledged with a payload", frame(SETTINGS, 1, 0, &[0; 6])),
        ("PING of 7 bytes", frame(6, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE of 0", frame(8, 0, 0, &[0; 4])),
        ("WINDOW_UPDATE too large twice", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ("PUSH_PROMISE from a client", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a frame larger than allowed", vec![0x7f, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ("padding longer than the frame", frame(DATA, 8, 1, &[200, 0])),
        ("HPACK out of the table", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x7f])),
        ("HPACK cut", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0, 5, b'a'])),
        (
            "HPACK table too large",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0xff, 0x0f]),
        ),
    ];
    for (name, input) in inputs {
        let mut http2 = Http2::connect(rig.outbound);
        http2.send(&input);
        let outcome = http2.outcome(1);
        assert!(is_refused(outcome), "{name}: {outcome:?}");
        rig.serves(rig.outbound);
    }
    assert!(rig.application.seen().is_empty());
}

#[test]
fn a_preface_that_is_not_one_is_no_http2() {
    let rig = rig();
    for input in [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], &PREFACE[..20], b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut http2 = weft_tests::raw::client::Client::connect(rig.outbound);
        http2.send(input);
        http2.finish();
        let _ = http2.rest();
        rig.serves(rig.outbound);
    }
    assert!(rig.application.seen().is_empty());
}
