//! Garbage and truncated bytes on every port of both planes.

use super::case::rig;
use weft_tests::raw::client::Client;
use weft_tests::raw::http2::{PREFACE, frame, get};
use weft_tests::raw::{PROBE, Rig};

/// Bytes from a seed; xorshift.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn every_port_serves(rig: &Rig) {
    for at in [rig.inbound, rig.outbound] {
        rig.serves(at);
    }
    for at in [rig.admin, rig.control_admin] {
        let mut client = Client::connect(at);
        client.send(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        assert_eq!(client.answer().map(|answer| answer.status), Some(200), "{at}");
    }
}

fn ports(rig: &Rig) -> [std::net::SocketAddr; 7] {
    [
        rig.inbound,
        rig.inbound_h2,
        rig.inbound_detect,
        rig.outbound,
        rig.outbound_h2,
        rig.admin,
        rig.control_admin,
    ]
}

#[test]
fn noise_on_every_port_harms_nobody() {
    let rig = rig();
    for seed in 1..40 {
        let bytes = noise(seed, usize::try_from(seed * seed * 7).unwrap());
        for at in ports(&rig).into_iter().chain([rig.grpc]) {
            let mut client = Client::connect(at);
            client.send(&bytes);
            client.finish();
            let _ = client.rest();
        }
    }
    every_port_serves(&rig);
}

#[test]
fn messages_cut_anywhere_on_every_port_harm_nobody() {
    let rig = rig();
    let http2 = [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]), &get(1, "/", &[("x", "y")])].concat();
    let post =
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
            .to_vec();
    // A ClientHello's record and its first bytes; what follows is missing.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(9, 100)].concat();
    for whole in [http2, post, hello, PROBE.to_vec()] {
        for cut in (1..whole.len()).step_by(3) {
            for at in ports(&rig).into_iter().chain([rig.grpc]) {
                let mut client = Client::connect(at);
                client.send(&whole[..cut]);
                client.finish();
                let _ = client.rest();
            }
        }
    }
    every_port_serves(&rig);
}
