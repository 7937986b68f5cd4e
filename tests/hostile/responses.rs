//! Answers get the same suspicion as requests.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use super::case::rig;
use weft_tests::raw::client::{Answer, Client};
use weft_tests::raw::{PROBE, Rig};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn ask(at: SocketAddr) -> Answer {
    try_ask(at).expect("an answer")
}

fn try_ask(at: SocketAddr) -> Option<Answer> {
    let mut client = Client::connect(at);
    client.send(GET);
    client.answer()
}

/// What the application says, and what the client gets for it from either side.
fn all(rig: &Rig, said: &[&[u8]], right: impl Fn(Option<&Answer>) -> bool) {
    let mut wrong = Vec::new();
    for bytes in said {
        for at in [rig.inbound, rig.outbound] {
            rig.application.says_and_closes(bytes);
            let answer = try_ask(at);
            if !right(answer.as_ref()) {
                let text = String::from_utf8_lossy(bytes);
                let got = format!("{answer:?}").chars().take(300).collect::<String>();
                wrong.push(format!("{:?}: {got}", &text[..text.len().min(200)]));
            }
            rig.serves(at);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_answer_that_cannot_be_read_is_a_bad_gateway() {
    let rig = rig();
    all(
        &rig,
        &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 0200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok",
            b"junk\r\n\r\n",
            b"\0\x01\x02\x03",
            b"HTTP/1.1 200 O",
            b"",
        ],
        |answer| answer.is_some_and(|answer| answer.status == 502 && answer.whole),
    );
}

#[test]
fn a_head_larger_than_the_limit_is_a_bad_gateway() {
    let rig = rig();
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(100_000));
    let many = (0..200).map(|n| format!("X{n}: y\r\n")).collect::<String>();
    let many = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
    all(&rig, &[long.as_bytes(), many.as_bytes()], |answer| {
        answer.is_some_and(|answer| answer.status == 502)
    });
    rig.until_limit_hit("header_bytes");
}

#[test]
fn a_client_can_tell_that_a_body_was_cut() {
    let rig = rig();
    all(
        &rig,
        &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc",
        ],
        |answer| answer.is_none_or(|answer| !answer.whole || answer.status == 502),
    );
}

#[test]
fn an_answer_without_length_ends_with_its_connection() {
    let rig = rig();
    all(&rig, &[b"HTTP/1.1 200 OK\r\n\r\nabc", b"HTTP/1.0 200 OK\r\n\r\nabc"], |answer| {
        answer.is_some_and(|answer| answer.status == 200 && answer.whole && answer.body == b"abc")
    });
}

#[test]
fn answers_without_a_body_have_none() {
    let rig = rig();
    for at in [rig.inbound, rig.outbound] {
        for said in [
            "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 304 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            rig.application.says(said.as_bytes());
            let mut client = Client::connect(at);
            client.send(GET);
            let answer = client.answer().unwrap();
            assert!(matches!(answer.status, 204 | 304), "{said:?}: {}", answer.head);
            client.send(PROBE);
            let next = client.answer().map(|answer| (answer.status, answer.body));
            assert_eq!(next, Some((200, b"ok".to_vec())), "after {said:?}");
        }
    }
}

#[test]
fn interim_answers_pass_and_are_capped() {
    let rig = rig();
    rig.application.says(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    for at in [rig.inbound, rig.outbound] {
        let mut client = Client::connect(at);
        client.send(GET);
        let statuses: Vec<u16> =
            std::iter::from_fn(|| client.answer()).take(3).map(|answer| answer.status).collect();
        assert_eq!(statuses, [103, 102, 200]);
    }
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    rig.application.answers(Arc::new(move |stream, _| {
        // Without end, until somebody stops it.
        while stream.write_all(&interim.repeat(100)).is_ok() {}
        false
    }));
    for at in [rig.inbound, rig.outbound] {
        let mut client = Client::connect(at);
        client.send(GET);
        let mut passed = 0;
        let last = loop {
            match client.answer().expect("an answer in the end").status {
                103 => passed += 1,
                status => break status,
            }
        };
        assert_eq!(last, 502);
        assert!(passed <= 16, "{passed} interim answers passed");
        rig.serves(at);
    }
    rig.until_limit_hit("interim");
}

#[test]
fn an_answer_before_the_end_of_the_request_passes_at_once() {
    let rig = rig();
    for at in [rig.inbound, rig.outbound] {
        // The application answers after the head and never reads the body.
        rig.application.greets(Arc::new(|stream| {
            use std::io::Read as _;
            let mut room = [0; 4096];
            let n = stream.read(&mut room).unwrap_or(0);
            if room[..n].starts_with(b"POST") {
                let _ = stream
                    .write_all(b"HTTP/1.1 413 Enough\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            } else {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
            false
        }));
        let mut client = Client::connect(at);
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nabc");
        let answer = client.answer().unwrap();
        assert!(matches!(answer.status, 413 | 502), "{}", answer.head);
        rig.serves(at);
    }
}

#[test]
fn an_answer_before_the_request_serves_nobody() {
    let rig = rig();
    let poison = b"HTTP/1.1 200 OK\r\nX-Poison: yes\r\nContent-Length: 6\r\n\r\npoison";
    // Once after each answer: bytes on a connection that nobody has asked anything on.
    rig.application.answers(Arc::new(move |stream, _| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(&[&answer[..], &poison[..]].concat()).is_ok()
    }));
    for at in [rig.inbound, rig.outbound] {
        for _ in 0..20 {
            let answer = ask(at);
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]), "{}", answer.head);
        }
    }
    // At once on every new connection: whoever is served there may get it, as from any server that lies;
    // HTTP/1 cannot tell an answer that came too early from one that came at once.
    rig.application.greets(Arc::new(move |stream| stream.write_all(poison).is_ok()));
    for at in [rig.inbound, rig.outbound] {
        for _ in 0..20 {
            assert!(matches!(ask(at).status, 200 | 502 | 503));
        }
    }
    rig.application.greets(Arc::new(|_| true));
    rig.serves(rig.inbound);
    rig.serves(rig.outbound);
}

#[test]
fn an_application_that_only_closes_is_a_bad_gateway() {
    let rig = rig();
    rig.application.greets(Arc::new(|stream| {
        let _ = stream.shutdown(Shutdown::Both);
        false
    }));
    for at in [rig.inbound, rig.outbound] {
        let status = ask(at).status;
        assert!(matches!(status, 502 | 503), "{status}");
    }
    rig.application.greets(Arc::new(|_| true));
}
