//! First bytes and what they are taken for, whole, in pieces and at random.

use super::*;
use crate::alpn::{self, Hop};
use proptest::prelude::*;

#[test]
fn first_bytes_tell_the_protocol() {
    use Detection::*;
    let rows: [(&[u8], Detection); 57] = [
        (b"", More),
        (b"G", More),
        (b"GET", More),
        (b"GET ", More),
        (b"GET /", Http1),
        (b"GET / HTTP/1.1\r\n", Http1),
        (b"POST /x HTTP/1.0\r\n", Http1),
        (b"OPTIONS * HT", More),
        (b"OPTIONS * HTTP/1.1\r\n", Http1),
        (b"OPTIONS * RTSP/1.0\r\n", Opaque),
        (b"CONNECT a.b:443 HTTP/1.1\r\n", Http1),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n", Http1),
        (b"GET h", More),
        (b"GET http:/", More),
        (b"GET http://a/ HTTP/1.1\r\n", Http1),
        (b"GET HTTP://a/ HTTP/1.1\r\n", Http1),
        (b"GET https://a/", Http1),
        (b"BREW /pot", More),
        (b"BREW /pot HTTP/1.1\r\n", Http1),
        (b"M-SEARCH /x HTTP/1.1\n", Http1),
        (b"BREW /pot\r\n", Opaque),
        (b"GET ?x HTTP/1.1\r\n", Http1),
        (b"PRI", More),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", More),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00", Http2),
        (b"PRI * HTTP/2.0\r\n\r\nXX", Opaque),
        (b"\x16", More),
        (b"\x16\x03\x01\x02\x00", More),
        (b"\x16\x03\x01\x02\x00\x01", Tls),
        (b"\x16\x03\x01\x02\x00\x02", Opaque),
        (b"\x16\x02\x01", Opaque),
        (b"\x16\x03\x01\xff", Opaque),
        (b"\x15\x03\x01\x00\x02\x02", Opaque),
        // strangers
        (b"*1\r\n$4\r\nPING\r\n", Opaque),
        (b"PING\r\n", Opaque),
        (b"GET key\r\n", Opaque),
        (b"SET key value\r\n", Opaque),
        (b"get key\r\n", Opaque),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Opaque),
        (b"\x4a\x00\x00\x00\x0a8.0.36", Opaque),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Opaque),
        (b"EHLO mail.example\r\n", Opaque),
        (b"220 mail.example ESMTP\r\n", Opaque),
        (b"a001 LOGIN x y\r\n", Opaque),
        (b"USER bob\r\n", Opaque),
        (b"CONNECT {\"verbose\":false}\r\n", Opaque),
        (b"CONNECT\naccept-version:1.2\n", Opaque),
        (b"REGISTER sip:a SIP/2.0\r\n", Opaque),
        (b"OPTIONS rtsp://a/b RTSP/1.0\r\n", Opaque),
        (b"\x10\x0c\x00\x04MQTT", Opaque),
        (b"\x00\x00\x00\x00", Opaque),
        (b" GET / HTTP/1.1", Opaque),
        (b"\r\nGET / HTTP/1.1", Opaque),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXY", Opaque),
        (b"G\x80T / HTTP/1.1", Opaque),
        (b"GET \x00", Opaque),
    ];
    for (bytes, expected) in rows {
        assert_eq!(detect(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn an_endless_strange_line_is_given_up() {
    let line = [b"BREW /".to_vec(), vec![b'a'; 4096]].concat();
    assert_eq!(detect(&line[..100]), Detection::More);
    assert_eq!(detect(&line), Detection::Opaque);
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(value)].concat()
}

fn hello(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(vector16(&[0x13, 1]));
    body.extend([1, 0]);
    body.extend(vector16(extensions));
    let message = [&[1, 0][..], &vector16(&body)].concat();
    [&[0x16, 3, 1][..], &vector16(&message)].concat()
}

fn offering(name: &str, protocols: &[&[u8]]) -> Vec<u8> {
    let sni = vector16(&[&[0][..], &vector16(name.as_bytes())].concat());
    let list: Vec<u8> = protocols.iter().flat_map(|p| [&[p.len() as u8][..], p].concat()).collect();
    hello(&[extension(43, &[2, 3, 4]), extension(0, &sni), extension(16, &vector16(&list))].concat())
}

#[test]
fn a_client_hello_tells_our_own_tls_from_the_applications() {
    let ours = offering("shop.cart", &[alpn::HTTP2, alpn::HTTP1]);
    assert_eq!(detect(&ours), Detection::Tls);
    assert_eq!(hello_length(&ours), Some(ours.len()));
    let read = client_hello(&ours).unwrap();
    assert_eq!(read.sni, Some("shop.cart"));
    assert_eq!(read.alpn().map(Hop::of).collect::<Vec<_>>(), [Some(Hop::Http2), Some(Hop::Http1)]);

    let theirs = offering("example.com", &[b"h2", b"http/1.1"]);
    assert!(client_hello(&theirs).unwrap().alpn().all(|name| Hop::of(name).is_none()));

    let bare = hello(&[]);
    let read = client_hello(&bare).unwrap();
    assert_eq!((read.sni, read.alpn().count()), (None, 0));
}

#[test]
fn a_cut_client_hello_is_not_read() {
    let whole = offering("shop.cart", &[alpn::TCP]);
    for length in 0..whole.len() {
        assert_eq!(client_hello(&whole[..length]), None, "{length}");
    }
    assert_eq!(Hop::of(b"weft/"), None);
}

#[test]
fn a_strange_server_name_is_left_out() {
    let hello = offering("a\0b", &[alpn::TCP]);
    assert_eq!(client_hello(&hello).unwrap().sni, None);
}

proptest! {
    #[test]
    fn any_bytes_are_answered_and_more_bytes_never_change_the_answer(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "(GET|PUT|CONNECT|FOO|OPTIONS|PRI) ?(/|http://|h|\\*|a|\\?)?[ -~\\x01\r]{0,12}( HTTP/1.1)?\r?\n?.{0,4}"
                .prop_map(String::into_bytes),
        ]
    ) {
        let mut settled = None;
        for length in 0..=bytes.len() {
            let now = detect(&bytes[..length]);
            if let Some(before) = settled {
                prop_assert_eq!(before, now, "at {}", length);
            } else if now != Detection::More {
                settled = Some(now);
            }
        }
    }

    #[test]
    fn a_damaged_client_hello_never_panics(at in 0usize..160, byte: u8, cut in 0usize..160) {
        let mut hello = offering("shop.cart", &[alpn::HTTP2, alpn::HTTP1, b"x"]);
        let length = hello.len();
        hello[at % length] = byte;
        for bytes in [&hello[..], &hello[..cut % length]] {
            if let Some(read) = client_hello(bytes) {
                let _ = read.alpn().count();
            }
        }
    }

    #[test]
    fn any_bytes_are_no_or_some_client_hello(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        let _ = client_hello(&bytes);
        let _ = hello_length(&bytes);
    }
}
