//! What really crosses a node's interfaces: packets, put together to the byte streams of TCP.
//!
//! Invariant: nothing is taken from applications or sidecars; only the kernel is asked.
//! Invariant: what crosses two interfaces of the node, as it does from pod to pod, is kept once.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_ALL`, in the network's order. Source: Linux `include/uapi/linux/if_ether.h`.
const ALL: i32 = 0x0003_u16.to_be() as i32;
/// Bytes kept of one stream. Source: a scenario's requests are far shorter.
const KEPT: usize = 1 << 20;
/// The extension `supported_versions` of a TLS 1.3 server's greeting. Source: RFC 8446 §4.2.1.
const CHOSE_1_3: &[u8] = &[0x00, 0x2b, 0x00, 0x02, 0x03, 0x04];

/// What to look for.
#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    /// What must, or must not, be readable.
    #[arg(long)]
    marker: String,
    /// Only streams from or to this port.
    #[arg(long)]
    port: Option<u16>,
}

/// One direction of one connection: from, to.
type Direction = (SocketAddr, SocketAddr);

/// Payloads by sequence number; what is seen twice is kept once.
type Segments = BTreeMap<u32, Vec<u8>>;

type Seen = Arc<Mutex<BTreeMap<Direction, Segments>>>;

/// Listens to every interface until standard input ends, then tells of every stream.
pub(crate) fn run(args: &TapArgs) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))?;
    let seen = Seen::default();
    crate::tell(&json!({"listening": true}))?;
    let (kept, port) = (Arc::clone(&seen), args.port);
    std::thread::spawn(move || listen(&socket, &kept, port));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let streams: Vec<Value> =
        seen.iter().map(|(direction, segments)| described(*direction, segments, &args.marker)).collect();
    crate::tell(&Value::Array(streams))
}

fn listen(mut socket: &Socket, seen: &Seen, port: Option<u16>) {
    // Longer than any packet between namespaces, which may carry 64 KiB at a time.
    let mut packet = vec![0; 128 << 10];
    while let Ok(length) = socket.read(&mut packet) {
        let Some((direction, sequence, payload)) = packet.get(..length).and_then(segment) else { continue };
        if port.is_some_and(|port| direction.0.port() != port && direction.1.port() != port) {
            continue;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = seen.entry(direction).or_default();
        if segments.values().map(Vec::len).sum::<usize>() < KEPT {
            segments.entry(sequence).or_insert_with(|| payload.to_vec());
        }
    }
}

fn described((from, to): Direction, segments: &Segments, marker: &str) -> Value {
    let bytes: Vec<u8> = segments.values().flatten().copied().collect();
    // A record of a handshake, its first message being the client's or the server's. Source: RFC 8446 §4, §5.1.
    let hello = |kind: u8| bytes.first() == Some(&22) && bytes.get(5) == Some(&kind);
    json!({
        "from": from.ip().to_string(),
        "to": to.ip().to_string(),
        "from_port": from.port(),
        "to_port": to.port(),
        "length": bytes.len(),
        "readable": contains(&bytes, marker.as_bytes()),
        "tls_client": hello(1),
        "tls_1_3_server": hello(2) && contains(&bytes, CHOSE_1_3),
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len().max(1)).any(|window| window == part)
}

/// Direction, sequence number and payload of a TCP segment that has a payload.
fn segment(frame: &[u8]) -> Option<(Direction, u32, &[u8])> {
    let packet = frame.get(14..)?;
    let (from, to, tcp) = match two(frame, 12)? {
        0x0800 if *packet.get(9)? == 6 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let address =
                |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let tcp = packet.get(header..usize::from(two(packet, 2)?))?;
            (IpAddr::from(address(12)?), IpAddr::from(address(16)?), tcp)
        }
        0x86dd if *packet.get(6)? == 6 => {
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            let tcp = packet.get(40..40 + usize::from(two(packet, 4)?))?;
            (IpAddr::from(address(8)?), IpAddr::from(address(24)?), tcp)
        }
        _ => return None,
    };
    let direction = (SocketAddr::new(from, two(tcp, 0)?), SocketAddr::new(to, two(tcp, 2)?));
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    (!payload.is_empty()).then_some((direction, sequence, payload))
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
