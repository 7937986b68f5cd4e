//! Heads that are refused, and fields that do not cross a hop.

use super::*;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use proptest::prelude::*;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn listed(map: &HeaderMap) -> Vec<String> {
    let mut list: Vec<_> = map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    list.sort();
    list
}

fn check(line: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let version = match version {
        "1.0" => Version::HTTP_10,
        "1.1" => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    check_request(&method.parse().unwrap(), &target.parse().unwrap(), version, &headers(fields))
}

type Fields<'a> = &'a [(&'a str, &'a str)];

const HOST: (&str, &str) = ("host", "shop.cart:8080");

#[test]
fn clean_requests_pass() {
    let rows: &[(&str, Fields<'_>)] = &[
        ("GET /a?b=c 1.1", &[HOST, ("accept", "*/*"), ("connection", "keep-alive")]),
        ("GET / 1.0", &[]),
        ("POST / 1.1", &[HOST, ("content-length", "5")]),
        ("POST / 1.1", &[HOST, ("transfer-encoding", "Chunked")]),
        ("OPTIONS * 1.1", &[HOST]),
        ("CONNECT db:5432 1.1", &[("host", "db:5432")]),
        ("GET http://shop.cart:8080/a 1.1", &[HOST]),
        ("GET http://SHOP.cart:80/a 1.1", &[("host", "shop.cart")]),
        ("GET https://a/x 1.1", &[("host", "a:443")]),
        ("GET / 1.1", &[("host", "[fd00::7]:80")]),
        ("GET / 1.1", &[("host", "10.0.0.1")]),
        ("GET http://shop/a 2", &[("te", "trailers")]),
        ("GET http://shop/a 2", &[("host", "shop")]),
        ("GET /a 2", &[("host", "shop")]),
        ("CONNECT db:5432 2", &[]),
        ("CONNECT http://shop/chat 2", &[]),
    ];
    for (line, fields) in rows {
        assert_eq!(check(line, fields), Ok(()), "{line} {fields:?}");
    }
}

#[test]
fn requests_that_readers_understand_differently_are_refused() {
    use Reason::{MalformedFraming, MalformedHost, MalformedPath, MalformedRequest};
    let rows: &[(&str, Fields<'_>, Reason)] = &[
        ("GET / 1.1", &[], MalformedHost),
        ("GET / 2", &[], MalformedHost),
        ("GET / 1.1", &[HOST, HOST], MalformedHost),
        ("GET / 1.0", &[HOST, HOST], MalformedHost),
        ("GET / 2", &[HOST, HOST], MalformedHost),
        ("GET / 1.1", &[("host", "")], MalformedHost),
        ("GET / 1.1", &[("host", "a b")], MalformedHost),
        ("GET / 1.1", &[("host", "a,b")], MalformedHost),
        ("GET / 1.1", &[("host", "a/b")], MalformedHost),
        ("GET / 1.1", &[("host", "u@a")], MalformedHost),
        ("GET / 1.1", &[("host", "a:")], MalformedHost),
        ("GET / 1.1", &[("host", ":80")], MalformedHost),
        ("GET / 1.1", &[("host", "a:80x")], MalformedHost),
        ("GET / 1.1", &[("host", "a:+80")], MalformedHost),
        ("GET / 1.1", &[("host", "a:0")], MalformedHost),
        ("GET / 1.1", &[("host", "a:65536")], MalformedHost),
        ("GET / 1.1", &[("host", "a:80:80")], MalformedHost),
        ("GET / 1.1", &[("host", "::1")], MalformedHost),
        ("GET / 1.1", &[("host", "[::1")], MalformedHost),
        ("GET / 1.1", &[("host", "[::g]")], MalformedHost),
        ("GET / 1.1", &[("host", "[::1]80")], MalformedHost),
        ("GET http://a/ 1.1", &[("host", "b")], MalformedHost),
        ("GET http://a:81/ 1.1", &[("host", "a")], MalformedHost),
        ("GET https://a:80/ 1.1", &[("host", "a")], MalformedHost),
        ("GET http://a/ 1.1", &[], MalformedHost),
        ("GET http://u:p@a/ 1.1", &[("host", "a")], MalformedHost),
        ("GET http://a/ 2", &[("host", "b")], MalformedHost),
        ("GET http://u@a/ 2", &[], MalformedHost),
        ("CONNECT db 1.1", &[("host", "db")], MalformedHost),
        ("CONNECT / 2", &[HOST], MalformedHost),
        ("CONNECT db:1 1.1", &[("host", "other:1")], MalformedHost),
        ("GET ftp://a/ 1.1", &[("host", "a")], MalformedRequest),
        ("GET * 1.1", &[HOST], MalformedRequest),
        ("GET http://a/ 2", &[("connection", "close")], MalformedRequest),
        ("GET /a/../b 1.1", &[HOST], MalformedPath),
        ("GET /%2e%2e/b 2", &[HOST], MalformedPath),
        ("CONNECT http://shop/a/../b 2", &[], MalformedPath),
        ("GET /a%00 1.1", &[HOST], MalformedPath),
        ("GET /a%5cb 1.1", &[HOST], MalformedPath),
        ("POST / 1.1", &[HOST, ("content-length", "5"), ("content-length", "5")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("content-length", "5, 5")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("content-length", "+5")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("content-length", "")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("content-length", "5"), ("transfer-encoding", "chunked")], MalformedFraming),
        ("POST / 1.0", &[HOST, ("transfer-encoding", "chunked")], MalformedFraming),
        ("POST / 2", &[HOST, ("transfer-encoding", "chunked")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("transfer-encoding", "gzip, chunked")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("transfer-encoding", "chunked, chunked")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("transfer-encoding", "chunked, identity")], MalformedFraming),
        ("POST / 1.1", &[HOST, ("transfer-encoding", "xchunked")], MalformedFraming),
        (
            "POST / 1.1",
            &[HOST, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            MalformedFraming,
        ),
    ];
    for (line, fields, reason) in rows {
        let refusal = check(line, fields).expect_err(&format!("{line} {fields:?} passed"));
        assert_eq!((refusal.reason, refusal.status.as_u16()), (*reason, 400), "{line} {fields:?}");
        assert_eq!(refusal.close, *reason == MalformedFraming, "{line} {fields:?}");
    }
}

#[test]
fn fields_of_one_hop_do_not_travel() {
    let mut map = headers(&[
        HOST,
        ("connection", "close, X-Mine, Keep-Alive"),
        ("connection", "te, x-other"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("x-mine", "1"),
        ("x-other", "1"),
        ("te", "gzip, Trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("weft-attempt", "2"),
        ("accept", "*/*"),
    ]);
    scrub_request(&mut map, Keep::default());
    assert_eq!(listed(&map), ["accept: */*", "host: shop.cart:8080", "te: trailers"]);
}

#[test]
fn a_client_cannot_take_away_what_others_rely_on() {
    let kept = [
        "host",
        "content-length",
        "authorization",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-proto",
        "forwarded",
        "traceparent",
        "weft-attempt",
    ];
    let mut map = headers(&[("connection", &kept.join(","))]);
    for name in kept {
        map.append(name, HeaderValue::from_static("1"));
    }
    scrub_request(&mut map, Keep { own: true, upgrade: false });
    assert_eq!(map.len(), kept.len());
    scrub_request(&mut map, Keep::default());
    assert!(!map.contains_key("weft-attempt"));
}

#[test]
fn only_upgrades_for_the_application_are_passed_on() {
    let rows: &[(Version, Fields<'_>, Option<&str>)] = &[
        (Version::HTTP_11, &[("connection", "Upgrade"), ("upgrade", "websocket")], Some("websocket")),
        (
            Version::HTTP_11,
            &[("connection", "keep-alive, upgrade"), ("upgrade", "WebSocket")],
            Some("WebSocket"),
        ),
        (Version::HTTP_11, &[("upgrade", "websocket")], None),
        (Version::HTTP_10, &[("connection", "upgrade"), ("upgrade", "websocket")], None),
        (Version::HTTP_11, &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], None),
        (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "H2C")], None),
        (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "websocket, h2c")], None),
        (Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "TLS/1.2")], None),
        (Version::HTTP_11, &[("connection", "upgrade")], None),
    ];
    for (version, fields, expected) in rows {
        let map = headers(fields);
        let found = upgrade(*version, &map).map(|value| value.to_str().unwrap());
        assert_eq!(found, *expected, "{fields:?}");
    }
    let mut map = headers(&[HOST, ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
    scrub_request(&mut map, Keep { upgrade: true, own: false });
    assert_eq!(listed(&map), ["connection: upgrade", "host: shop.cart:8080", "upgrade: websocket"]);
}

#[test]
fn answers_get_the_same_suspicion() {
    let rows: &[(u16, Fields<'_>, bool, bool)] = &[
        (200, &[("content-length", "5")], false, true),
        (200, &[("transfer-encoding", "chunked")], false, true),
        (100, &[], false, true),
        (101, &[("upgrade", "websocket")], true, true),
        (101, &[], false, false),
        (600, &[], false, false),
        (999, &[], false, false),
        (200, &[("content-length", "5"), ("content-length", "6")], false, false),
        (200, &[("content-length", "5, 5")], false, false),
        (200, &[("content-length", "-5")], false, false),
        (200, &[("content-length", "5"), ("transfer-encoding", "chunked")], false, false),
        (200, &[("transfer-encoding", "gzip")], false, false),
        (200, &[("transfer-encoding", "chunked, chunked")], false, false),
    ];
    for (status, fields, upgrade, passes) in rows {
        let status = StatusCode::from_u16(*status).unwrap();
        let verdict = check_response(status, &headers(fields), Asked { upgrade: *upgrade });
        match passes {
            true => assert_eq!(verdict, Ok(()), "{status} {fields:?}"),
            false => {
                assert_eq!(verdict, Err(Refusal::closing(Reason::UpstreamProtocol)), "{status} {fields:?}")
            }
        }
    }
    assert_eq!(Refusal::of(Reason::UpstreamProtocol).status, 502);
}

#[test]
fn answers_lose_the_fields_of_their_hop() {
    let mut map = headers(&[
        ("connection", "close, x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("weft-load", "1"),
        ("set-cookie", "a"),
    ]);
    scrub_response(&mut map, Keep::default());
    assert_eq!(listed(&map), ["set-cookie: a"]);
}

#[test]
fn trailers_carry_results_only() {
    let mut map = headers(&[
        ("grpc-status", "0"),
        ("grpc-message", ""),
        ("x-checksum", "1"),
        ("server-timing", "a"),
        ("content-length", "5"),
        ("host", "a"),
        ("transfer-encoding", "chunked"),
        ("authorization", "x"),
        ("cookie", "x"),
        ("set-cookie", "x"),
        ("if-match", "x"),
        ("x-forwarded-for", "x"),
        ("weft-attempt", "1"),
        ("te", "trailers"),
    ]);
    scrub_trailers(&mut map);
    assert_eq!(listed(&map), ["grpc-message: ", "grpc-status: 0", "server-timing: a", "x-checksum: 1"]);
}

proptest! {
    #[test]
    fn any_host_is_answered_and_a_valid_one_is_an_authority(host in "[ -~]{0,24}|[a-z0-9.\\[\\]:@/-]{0,16}") {
        if is_valid_authority(&host) {
            prop_assert!(host.parse::<http::uri::Authority>().is_ok(), "{}", host);
            prop_assert!(!host.contains(['@', '/', ' ', ',']));
        }
    }

    #[test]
    fn any_fields_are_checked_and_scrubbed(
        fields in prop::collection::vec(
            (
                prop::sample::select(vec!["connection", "te", "host", "content-length", "transfer-encoding", "upgrade", "weft-x", "x"]),
                prop::collection::vec(prop_oneof![Just(9u8), 32u8..127, 128u8..=255], 0..16),
            ),
            0..8,
        )
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let _ = check_request(&Method::GET, &Uri::from_static("/"), Version::HTTP_11, &map);
        let _ = check_response(StatusCode::OK, &map, Asked::default());
        let _ = upgrade(Version::HTTP_11, &map);
        scrub_request(&mut map, Keep::default());
        for name in ["connection", "upgrade", "weft-x"] {
            prop_assert!(!map.contains_key(name));
        }
    }
}
