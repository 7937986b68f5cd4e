//! Request lines, field grammar, Host, targets and paths.

use super::case::Then::{Closes, Goes};
use super::case::{Case, check, passes, refused, rig, rig_with};
use weft_tests::raw::client::Client;

/// A request with this head after its request line.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")
}

fn hosts() -> Vec<Case> {
    vec![
        passes("a host", with("Host: shop"), Goes, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"),
        passes("a port", with("Host: shop:8080"), Goes, "GET / HTTP/1.1\r\nHost: shop:8080\r\n\r\n"),
        passes("IPv6", with("Host: [::1]:80"), Goes, "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
        refused("no host", with("X: y"), 400, Goes),
        refused("two hosts", with("Host: a\r\nHost: b"), 400, Goes),
        refused("twice the same host", with("Host: a\r\nHost: a"), 400, Goes),
        refused("empty host", with("Host:"), 400, Goes),
        refused("userinfo", with("Host: me@shop"), 400, Goes),
        refused("path in host", with("Host: shop/x"), 400, Goes),
        refused("list in host", with("Host: a, b"), 400, Goes),
        refused("blank in host", with("Host: a b"), 400, Goes),
        refused("port of letters", with("Host: shop:http"), 400, Goes),
        refused("port too large", with("Host: shop:65536"), 400, Goes),
        refused("empty port", with("Host: shop:"), 400, Goes),
        refused("two ports", with("Host: shop:80:80"), 400, Goes),
        refused("open bracket", with("Host: [::1"), 400, Goes),
        refused("bytes beyond ASCII", b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", 400, Goes),
    ]
}

#[test]
fn a_request_names_exactly_one_host() {
    let rig = rig();
    check(&rig, rig.inbound, &hosts());
    check(&rig, rig.outbound, &hosts());
}

#[test]
fn a_request_of_http_1_0_without_host_gets_the_destinations() {
    let rig = rig();
    let host = rig.application.address;
    let reached = format!("GET /old HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let cases = [
        passes("no host", "GET /old HTTP/1.0\r\n\r\n", Closes, &reached),
        passes(
            "kept alive",
            "GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            Goes,
            "GET /old HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn an_absolute_target_wins_over_host_and_may_not_contradict_it() {
    let rig = rig();
    let cases = [
        passes(
            "absolute form",
            "GET http://shop/x?y HTTP/1.1\r\nHost: shop\r\n\r\n",
            Goes,
            "GET /x?y HTTP/1.1\r\nHost: shop\r\n\r\n",
        ),
        passes(
            "default port",
            "GET http://shop:80/ HTTP/1.1\r\nHost: shop\r\n\r\n",
            Goes,
            "GET / HTTP/1.1\r\nHost: shop:80\r\n\r\n",
        ),
        refused("contradiction", "GET http://other/ HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Goes),
        refused("without host", "GET http://shop/ HTTP/1.1\r\n\r\n", 400, Goes),
        refused("userinfo", "GET http://me@shop/ HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Goes),
        refused("another scheme", "GET ftp://shop/ HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Goes),
        refused("no path, no host", "GET http:// HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Closes),
        refused("authority form without CONNECT", "GET shop:80 HTTP/1.1\r\nHost: shop:80\r\n\r\n", 400, Goes),
        refused("CONNECT to a path", "CONNECT /x HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Closes),
        refused("CONNECT without a port", "CONNECT shop HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Closes),
        refused("asterisk without OPTIONS", "GET * HTTP/1.1\r\nHost: shop\r\n\r\n", 400, Goes),
        passes(
            "asterisk",
            "OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n",
            Goes,
            "OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n",
        ),
    ];
    check(&rig, rig.inbound, &cases);
}

#[test]
fn a_path_arrives_byte_for_byte_or_not_at_all() {
    let rig = rig();
    let kept = [
        "/",
        "//",
        "/a//b",
        "/%41",
        "/a%2fb",
        "/a%2Fb",
        "/a;b=c",
        "/a?b=../c",
        "/a?%00",
        "/.well-known",
        "/...",
        "/a%20b",
        "/%C3%A9",
        "/a%25b",
        "/?",
        "/a/",
        "/a?b?c",
        "/~x",
    ];
    let refused_paths = [
        "/..",
        "/../x",
        "/a/../b",
        "/.",
        "/a/./b",
        "/%2e%2e/x",
        "/%2E%2e",
        "/a/%2e/b",
        "/..;/x",
        "/..%2fx",
        "/a\\b",
        "/a%5cb",
        "/%00",
        "/a%0ab",
        "/%",
        "/%4",
        "/%zz",
        "/a%7f",
    ];
    let line = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    let mut cases: Vec<Case> =
        kept.iter().map(|path| passes("kept", line(path), Goes, &line(path))).collect();
    cases.extend(refused_paths.iter().map(|path| refused("refused", line(path), 400, Goes)));
    check(&rig, rig.inbound, &cases);
}

#[test]
fn a_head_that_breaks_the_grammar_is_refused_and_the_connection_closed() {
    let rig = rig();
    let cases = [
        refused("folded line", with("Host: a\r\nX: b\r\n c"), 400, Closes),
        refused("folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, Closes),
        refused("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400, Closes),
        refused("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400, Closes),
        refused("bare CR in a value", with("Host: a\r\nX: b\rc"), 400, Closes),
        refused("blank before the colon", with("Host: a\r\nX : b"), 400, Closes),
        refused("no colon", with("Host: a\r\nX"), 400, Closes),
        refused("no name", with("Host: a\r\n: b"), 400, Closes),
        refused("blank in a name", with("Host: a\r\nX y: b"), 400, Closes),
        refused("a name beyond ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n", 400, Closes),
        refused("DEL in a value", with("Host: a\r\nX: \x7f"), 400, Closes),
        refused("no version", "GET /\r\nHost: a\r\n\r\n", 400, Closes),
        refused("another version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400, Closes),
        refused("version 2 in text", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400, Closes),
        refused("version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("a tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("words after the version", "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400, Closes),
        refused("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("a method with a colon", "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("a blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("a blank first", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closes),
        refused("junk", "\x01\x02\x03\x04 nonsense\r\n\r\n", 400, Closes),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn a_fragment_is_gone_before_anybody_looks_at_the_path() {
    let rig = rig();
    // A target has no fragment and should be refused; the library cuts it off before we see it. Policy
    // and application see the same path.
    let reached = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    check(
        &rig,
        rig.inbound,
        &[passes("a fragment", "GET /a#/../b HTTP/1.1\r\nHost: a\r\n\r\n", Goes, reached)],
    );
}

#[test]
fn a_head_that_is_too_large_gets_431() {
    let rig = rig_with(&["--max-header-bytes", "16384", "--max-headers", "20"]);
    let long = "x".repeat(20_000);
    let many = (0..30).map(|n| format!("\r\nX{n}: y")).collect::<String>();
    let cases = [
        refused("one long value", with(&format!("Host: a\r\nX: {long}")), 431, Closes),
        refused("one long name", with(&format!("Host: a\r\n{long}: x")), 431, Closes),
        refused("many fields", with(&format!("Host: a{many}")), 431, Closes),
        refused("a long target", format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431, Closes),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
    rig.until_limit_hit("header_bytes");
}

#[test]
fn a_head_that_does_not_come_to_its_end_gets_408() {
    let rig = rig_with(&["--header-timeout", "1s"]);
    for at in [rig.inbound, rig.outbound] {
        for input in ["GET / HTTP/1.1\r\nHo", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut client = Client::connect(at);
            client.send(input.as_bytes());
            assert_eq!(client.answer().map(|answer| answer.status), Some(408), "{input:?}");
            assert!(client.is_closed(), "{input:?}");
        }
        // The same on a connection that has served a request before.
        let mut client = Client::connect(at);
        client.send(weft_tests::raw::PROBE);
        assert_eq!(client.answer().map(|answer| answer.status), Some(200));
        client.send(b"GET / HT");
        assert_eq!(client.answer().map(|answer| answer.status), Some(408));
        assert!(client.is_closed());
        rig.serves(at);
    }
    assert!(rig.application.seen().is_empty());
    rig.until_limit_hit("header_timeout");
}
