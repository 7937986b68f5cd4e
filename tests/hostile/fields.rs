//! Fields of one hop, upgrades, tunnels, trailers.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use super::case::Then::{Closes, Goes};
use super::case::{check, passes, refused, rig, without_trace};
use weft_tests::raw::client::Client;

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn fields_of_one_hop_end_here() {
    let rig = rig();
    let bare = get("");
    let cases = [
        passes("keep-alive", get("Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n"), Goes, &bare),
        passes("proxy-connection", get("Proxy-Connection: keep-alive\r\n"), Goes, &bare),
        passes("close", get("Connection: close\r\n"), Closes, &bare),
        passes("a field named in connection", get("X-Hop: 1\r\nConnection: x-hop\r\n"), Goes, &bare),
        passes("a list, with blanks", get("A: 1\r\nB: 2\r\nConnection: a , ,b\r\n"), Goes, &bare),
        passes("two lines", get("A: 1\r\nB: 2\r\nConnection: a\r\nConnection: B\r\n"), Goes, &bare),
        passes("TE", get("TE: gzip\r\nConnection: te\r\n"), Goes, &bare),
        passes(
            "TE trailers",
            get("TE: trailers, gzip\r\nConnection: te\r\n"),
            Goes,
            &get("TE: trailers\r\n"),
        ),
        passes("upgrade to nothing", get("Upgrade: h2c\r\n"), Goes, &bare),
        passes(
            "upgrade to HTTP/2",
            get(
                "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n",
            ),
            Goes,
            &bare,
        ),
        passes("upgrade to TLS", get("Upgrade: TLS/1.0\r\nConnection: upgrade\r\n"), Goes, &bare),
        passes("own fields", get("Weft-Reason: x\r\nweft-anything: y\r\n"), Goes, &bare),
    ];
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn what_the_next_hop_relies_on_cannot_be_taken_away() {
    let rig = rig();
    let kept = [
        "Authorization: b\r\n",
        "X-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-Proto: https\r\n",
        "Forwarded: for=x\r\n",
        "Cookie: a=b\r\n",
        "Cache-Control: no-store\r\n",
        "Via: 1.1 x\r\n",
    ];
    let cases: Vec<_> = kept
        .iter()
        .map(|field| {
            let name = field.split(':').next().unwrap();
            passes("kept", get(&format!("{field}Connection: {name}\r\n")), Goes, &get(field))
        })
        .chain([
            passes("host", get("Connection: host\r\n"), Goes, &get("")),
            passes(
                "content-length",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: content-length\r\n\r\nabc",
                Goes,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            ),
        ])
        .collect();
    check(&rig, rig.inbound, &cases);
    check(&rig, rig.outbound, &cases);
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_bad_gateway() {
    let rig = rig();
    rig.application.says_and_closes(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    );
    for at in [rig.inbound, rig.outbound] {
        for input in [get(""), get("Upgrade: h2c\r\nConnection: upgrade\r\n"), get("Upgrade: websocket\r\n")]
        {
            let mut client = Client::connect(at);
            client.send(input.as_bytes());
            let answer = client.answer().unwrap();
            assert_eq!(answer.status, 502, "{input:?}: {}", answer.head);
            rig.serves(at);
        }
    }
}

#[test]
fn an_upgrade_passes_bytes_and_leaks_nothing_of_the_old_connection() {
    let rig = rig();
    rig.application.answers(Arc::new(|stream, _| {
        let switched =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello";
        let _ = stream.write_all(switched);
        let mut room = [0; 1024];
        while let Ok(n) = stream.read(&mut room) {
            if n == 0 || stream.write_all(&room[..n]).is_err() {
                break;
            }
        }
        false
    }));
    for at in [rig.inbound, rig.outbound] {
        let mut client = Client::connect(at);
        // What follows the request at once is the new protocol's, whatever it looks like.
        let early = "GET /early HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(
            get(&format!("Upgrade: echo\r\nConnection: Upgrade\r\n\r\n{early}"))
                .trim_end_matches("\r\n")
                .as_bytes(),
        );
        client.send(b"\r\n\r\n");
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.field("upgrade")), (101, Some("echo")), "{}", answer.head);
        assert_eq!(client.exactly(5).as_deref(), Some(&b"hello"[..]));
        client.finish();
        assert_eq!(String::from_utf8_lossy(&client.rest()).trim_end(), early.trim_end());
        rig.serves(at);
        let seen: Vec<String> = rig.application.seen().iter().map(|request| without_trace(request)).collect();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(!seen.iter().any(|request| request.contains("/early")), "{seen:?}");
    }
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let rig = rig();
    let upgrade = get("Upgrade: echo\r\nConnection: upgrade\r\n");
    let reached = get("Upgrade: echo\r\nconnection: upgrade\r\n");
    let mut client = Client::connect(rig.inbound);
    client.send(upgrade.as_bytes());
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    let seen: Vec<String> = rig.application.seen().iter().map(|request| without_trace(request)).collect();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].eq_ignore_ascii_case(&reached), "{seen:?}");
    rig.serves(rig.inbound);
}

#[test]
fn after_a_refused_connect_the_connection_is_closed() {
    let rig = rig();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for at in [rig.inbound, rig.outbound] {
        for target in ["/x", "shop"] {
            let input = format!("CONNECT {target} HTTP/1.1\r\nHost: shop\r\n\r\n{smuggled}");
            check(&rig, at, &[refused("refused by us", input, 400, Closes)]);
        }
        rig.application.says(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n");
        let mut client = Client::connect(at);
        client.send(format!("CONNECT shop:80 HTTP/1.1\r\nHost: shop:80\r\n\r\n{smuggled}").as_bytes());
        assert_eq!(client.answer().map(|answer| answer.status), Some(405));
        assert!(client.is_closed());
        let seen = rig.application.seen();
        assert!(!seen.iter().any(|request| request.contains("/smuggled")), "{seen:?}");
        rig.serves(at);
    }
}

#[test]
fn trailers_that_steer_are_dropped_in_both_directions() {
    let rig = rig();
    let bad = "Content-Length: 5\r\nHost: b\r\nTransfer-Encoding: chunked\r\nAuthorization: x\r\nWeft-Reason: y\r\n\
               X-Forwarded-For: z\r\nSet-Cookie: a=b\r\nConnection: close\r\n";
    rig.application.says(
        format!("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{bad}X-Sum: 1\r\n\r\n")
            .as_bytes(),
    );
    for at in [rig.inbound, rig.outbound] {
        let mut client = Client::connect(at);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n";
        client.send(format!("{head}\r\n3\r\nabc\r\n0\r\n{bad}X-Sum: 1\r\n\r\n").as_bytes());
        client.finish();
        let answer = String::from_utf8(client.rest()).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n");
        let seen = rig.application.seen();
        let (_, body) = seen[0].split_once("\r\n\r\n").unwrap();
        assert_eq!(body.to_ascii_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
        rig.serves(at);
    }
}
