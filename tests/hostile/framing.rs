//! Where a request ends: lengths, encodings, chunks, pipelines, bytes after the end.

use super::case::Then::{Closes, Goes};
use super::case::{Case, check, passes, refused, rig, without_trace};
use weft_tests::raw::client::Client;

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

#[test]
fn a_request_has_one_length() {
    let rig = rig();
    let same = |fields: &str, body: &str| post(fields, body);
    let cases = [
        passes("a length", post("Content-Length: 3", "abc"), Goes, &same("Content-Length: 3", "abc")),
        passes("no body", post("Content-Length: 0", ""), Goes, &same("Content-Length: 0", "")),
        refused("two lengths", post("Content-Length: 3\r\nContent-Length: 4", "abcd"), 400, Closes),
        refused("a list of lengths", post("Content-Length: 3, 3", "abc"), 400, Closes),
        refused("a sign", post("Content-Length: +3", "abc"), 400, Closes),
        refused("less than nothing", post("Content-Length: -3", "abc"), 400, Closes),
        refused("hexadecimal", post("Content-Length: 0x3", "abc"), 400, Closes),
        refused("a blank inside", post("Content-Length: 1 2", "abc"), 400, Closes),
        refused("empty", post("Content-Length:", "abc"), 400, Closes),
        refused("a fraction", post("Content-Length: 3.0", "abc"), 400, Closes),
        refused(
            "more than can be counted",
            post("Content-Length: 99999999999999999999999", "abc"),
            400,
            Closes,
        ),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn a_transfer_encoding_is_chunked_and_nothing_else() {
    let rig = rig();
    let body = "3\r\nabc\r\n0\r\n\r\n";
    let chunked = post(CHUNKED, body);
    let encoding = |value: &str| post(&format!("Transfer-Encoding: {value}"), body);
    let cases = [
        passes("chunked", &chunked, Goes, &chunked),
        refused("twice in a list", encoding("chunked, chunked"), 400, Closes),
        refused("twice in lines", post(&format!("{CHUNKED}\r\n{CHUNKED}"), body), 400, Closes),
        refused("gzip before", encoding("gzip, chunked"), 400, Closes),
        refused("gzip after", encoding("chunked, gzip"), 400, Closes),
        refused("identity", encoding("identity"), 400, Closes),
        refused("quoted", encoding("\"chunked\""), 400, Closes),
        refused("with a parameter", encoding("chunked;x=y"), 400, Closes),
        refused("with junk", encoding("xchunked"), 400, Closes),
        refused("vertical tab", encoding("\x0bchunked"), 400, Closes),
        refused("empty", encoding(""), 400, Closes),
        refused(
            "in HTTP/1.0",
            format!("POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n{CHUNKED}\r\n\r\n{body}"),
            400,
            Closes,
        ),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn after_a_length_and_an_encoding_the_connection_is_closed() {
    let rig = rig();
    let body = "3\r\nabc\r\n0\r\n\r\n";
    let reached = post(CHUNKED, body);
    let cases = [
        passes("length first", post(&format!("Content-Length: 3\r\n{CHUNKED}"), body), Closes, &reached),
        passes("encoding first", post(&format!("{CHUNKED}\r\nContent-Length: 3"), body), Closes, &reached),
        // What a naive reader would take for a second request never becomes one.
        passes(
            "smuggled",
            post(
                &format!("Content-Length: 60\r\n{CHUNKED}"),
                &format!("{body}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
            ),
            Closes,
            &reached,
        ),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn chunks_are_read_as_they_are_written_or_not_at_all() {
    let rig = rig();
    let cases: Vec<Case> = vec![
        passes(
            "extensions are dropped",
            post(CHUNKED, "3;a=b\r\nabc\r\n0;c\r\n\r\n"),
            Goes,
            &post(CHUNKED, "3\r\nabc\r\n0\r\n\r\n"),
        ),
        passes(
            "upper case",
            post(CHUNKED, "A\r\n0123456789\r\n0\r\n\r\n"),
            Goes,
            &post(CHUNKED, "A\r\n0123456789\r\n0\r\n\r\n"),
        ),
        passes(
            "leading zeros",
            post(CHUNKED, "003\r\nabc\r\n000\r\n\r\n"),
            Goes,
            &post(CHUNKED, "3\r\nabc\r\n0\r\n\r\n"),
        ),
    ];
    check(&rig, rig.inbound, &cases);
    let broken = [
        "x\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabcX\r0\r\n\r\n",
        "\r\n3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "3;\n\r\nabc\r\n0\r\n\r\n",
    ];
    for at in [rig.inbound, rig.outbound] {
        for body in broken {
            let mut client = Client::connect(at);
            client.send(post(CHUNKED, body).as_bytes());
            client.finish();
            // Its head has passed already, so an answer may say what the application's half made of it.
            let answer = client.answer();
            assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{body:?}: {answer:?}");
            let rest = client.rest();
            assert!(rest.is_empty(), "{body:?} is followed by {:?}", String::from_utf8_lossy(&rest));
            rig.serves(at);
            let seen = rig.application.seen();
            let whole = seen.iter().any(|request| request.contains("\r\n0\r\n\r\n"));
            assert!(!whole, "{body:?} arrived as a whole request: {seen:?}");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let rig = rig();
    for at in [rig.inbound, rig.outbound] {
        let mut client = Client::connect(at);
        let requests: Vec<String> =
            (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(requests.concat().as_bytes());
        for n in 0..20 {
            assert_eq!(client.answer().map(|answer| answer.status), Some(200), "answer {n}");
        }
        let seen: Vec<String> = rig.application.seen().iter().map(|request| without_trace(request)).collect();
        assert_eq!(seen, requests);
    }
}

#[test]
fn a_refusal_in_a_pipeline_is_answered_in_its_place() {
    let rig = rig();
    let mut client = Client::connect(rig.inbound);
    client
        .send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses: Vec<u16> = (0..3).filter_map(|_| client.answer()).map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 400, 200]);
    let mut client = Client::connect(rig.inbound);
    client.send(b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\nGET /5 HTTP/1.1\r\nHost : a\r\n\r\nGET /6 HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses: Vec<u16> = (0..2).filter_map(|_| client.answer()).map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 400]);
    assert!(client.is_closed(), "nothing after a head that cannot be read is believed");
    let seen = rig.application.seen();
    let paths: Vec<&str> = seen.iter().filter_map(|request| request.split(' ').nth(1)).collect();
    assert_eq!(paths, ["/1", "/3", "/4"]);
}

#[test]
fn bytes_after_the_end_are_the_next_request_and_nothing_more() {
    let rig = rig();
    let mut client = Client::connect(rig.inbound);
    client.send(post("Content-Length: 3", "abcdef\r\n\r\n").as_bytes());
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
    assert!(client.is_closed());
    rig.serves(rig.inbound);
    let seen: Vec<String> = rig.application.seen().iter().map(|request| without_trace(request)).collect();
    assert_eq!(seen, [post("Content-Length: 3", "abc")]);
}

#[test]
fn a_request_cut_in_its_body_does_not_arrive_whole() {
    let rig = rig();
    for at in [rig.inbound, rig.outbound] {
        for input in
            [post("Content-Length: 10", "abc"), post(CHUNKED, "a\r\nabc"), post(CHUNKED, "3\r\nabc\r\n")]
        {
            let mut client = Client::connect(at);
            client.send(input.as_bytes());
            client.finish();
            let answer = client.answer();
            assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{input:?}: {answer:?}");
            rig.serves(at);
            let seen = rig.application.seen();
            assert!(!seen.iter().any(|request| request.ends_with("0\r\n\r\n")), "{input:?}: {seen:?}");
        }
    }
}
