//! What really crosses a namespace's interfaces: packets, put together to the byte streams of TCP.
//!
//! Invariant: nothing is taken from the applications or the sidecars; only the kernel is asked.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use socket2::{Domain, Protocol, Socket, Type};
use weft_tests::netns::Namespace;

/// One direction of one connection: from, to.
pub(crate) type Direction = (SocketAddrV4, SocketAddrV4);

/// Payloads by sequence number; what is sent twice is kept once.
type Segments = BTreeMap<u32, Vec<u8>>;

/// All that has been seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<BTreeMap<Direction, Segments>>>);

impl Tap {
    /// Listens to every interface of a namespace from now on.
    pub(crate) fn on(namespace: &Namespace) -> Self {
        /// `ETH_P_ALL`, in the network's order. Source: Linux `include/uapi/linux/if_ether.h`.
        const ALL: i32 = 0x0003_u16.to_be() as i32;
        let socket =
            namespace.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))).unwrap();
        let tap = Self::default();
        let seen = tap.clone();
        std::thread::spawn(move || {
            // Longer than any packet between namespaces, which may carry 64 KiB at a time.
            let mut packet = vec![0; 128 << 10];
            while let Ok(length) = (&socket).read(&mut packet) {
                if let Some((direction, sequence, payload)) = segment(&packet[..length]) {
                    let mut seen = seen.0.lock().unwrap();
                    seen.entry(direction).or_default().entry(sequence).or_insert_with(|| payload.to_vec());
                }
            }
        });
        tap
    }

    /// The streams that went to a port, and those that came from it.
    pub(crate) fn streams(&self, port: u16) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let seen = self.0.lock().unwrap();
        let of = |matches: &dyn Fn(&Direction) -> bool| {
            let streams = seen.iter().filter(|(direction, _)| matches(direction));
            streams.map(|(_, segments)| segments.values().flatten().copied().collect()).collect()
        };
        (of(&|(_, to)| to.port() == port), of(&|(from, _)| from.port() == port))
    }
}

/// Direction, sequence number and payload of an IPv4 TCP segment that has a payload.
fn segment(frame: &[u8]) -> Option<(Direction, u32, &[u8])> {
    let two = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let ip = frame.get(14..)?;
    if two(frame, 12)? != 0x0800 || *ip.get(9)? != 6 {
        return None;
    }
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let tcp = ip.get(header..usize::from(two(ip, 2)?))?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let from = SocketAddrV4::new(address(12)?, two(tcp, 0)?);
    let to = SocketAddrV4::new(address(16)?, two(tcp, 2)?);
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    (!payload.is_empty()).then_some(((from, to), sequence, payload))
}
