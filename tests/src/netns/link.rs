//! Interfaces, addresses and routes over rtnetlink: what `ip link`, `ip address` and `ip route` would do.
//!
//! Every number is the kernel's. Source: Linux `include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h`.
//!
//! Invariant: a call is done when it returns: addresses are usable at once (no duplicate address
//! detection) and both ends of a cable are up.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use weft_proxy_net::redirect::netlink::{ACK, Attributes, CREATE, EXCLUSIVE, Socket, Writer};

use super::Namespace;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// `IFLA_IFNAME`, `IFLA_LINKINFO`, `IFLA_NET_NS_FD`; inside the link's information its kind and data;
/// inside a veth's data its peer.
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFA_ADDRESS`, `IFA_LOCAL`; `IFA_F_NODAD`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const NO_DETECTION: u8 = 2;
/// `RTA_DST`, `RTA_GATEWAY`; the main table, a static route, of type unicast.
const DESTINATION: u16 = 1;
const GATEWAY: u16 = 5;
const MAIN: u8 = 254;
const STATIC: u8 = 4;
const UNICAST: u8 = 1;

/// One end of a cable between namespaces; see [`Namespace::end`].
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where the interface is.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub interface: &'a str,
    /// Its addresses.
    pub addresses: &'a [&'a str],
}

/// Joins two namespaces with a cable (a veth pair) and brings both ends up with their addresses.
///
/// # Errors
/// A text that is no address, or what the kernel says.
pub fn join(one: &End<'_>, other: &End<'_>) -> io::Result<()> {
    one.namespace.run(|| add_cable(one.interface, other))?;
    for end in [one, other] {
        end.namespace.run(|| {
            set_up(end.interface)?;
            end.addresses.iter().try_for_each(|address| add_address(end.interface, address))
        })?;
    }
    Ok(())
}

/// Brings up the calling thread's loopback interface.
pub(super) fn loopback_up() -> io::Result<()> {
    set_up("lo")
}

pub(super) fn add_route(network: &str, via: &str) -> io::Result<()> {
    let network: IpNet = network.parse().map_err(io::Error::other)?;
    let via: IpAddr = via.parse().map_err(io::Error::other)?;
    let header = [family(via), network.prefix_len(), 0, 0, MAIN, STATIC, 0, UNICAST, 0, 0, 0, 0];
    request(NEW_ROUTE, CREATE | EXCLUSIVE, &header, |a| {
        if network.prefix_len() > 0 {
            a.bytes(DESTINATION, &octets(network.network()));
        }
        a.bytes(GATEWAY, &octets(via));
    })
}

fn add_cable(interface: &str, peer: &End<'_>) -> io::Result<()> {
    let namespace = peer.namespace.as_fd().as_raw_fd().to_ne_bytes();
    request(NEW_LINK, CREATE | EXCLUSIVE, &link(0, 0), |a| {
        a.text(LINK_NAME, interface);
        a.nest(LINK_INFO, |a| {
            a.text(INFO_KIND, "veth");
            a.nest(INFO_DATA, |a| {
                a.nest_after(VETH_PEER, &link(0, 0), |a| {
                    a.text(LINK_NAME, peer.interface);
                    a.bytes(LINK_NAMESPACE, &namespace);
                });
            });
        });
    })
}

fn set_up(interface: &str) -> io::Result<()> {
    request(NEW_LINK, 0, &link(index(interface)?, UP), |_| {})
}

fn add_address(interface: &str, address: &str) -> io::Result<()> {
    let address: IpNet = address.parse().map_err(io::Error::other)?;
    let mut header = vec![family(address.addr()), address.prefix_len(), NO_DETECTION, 0];
    header.extend_from_slice(&index(interface)?.to_ne_bytes());
    request(NEW_ADDRESS, CREATE | EXCLUSIVE, &header, |a| {
        a.bytes(LOCAL, &octets(address.addr()));
        a.bytes(ADDRESS, &octets(address.addr()));
    })
}

/// `struct ifinfomsg`: which interface, and which of its flags change (to what they are).
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    for number in [index, flags, flags] {
        header.extend_from_slice(&number.to_ne_bytes());
    }
    header
}

fn index(interface: &str) -> io::Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(name_to_index(&any, interface)?)
}

/// `AF_INET`, `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn request(kind: u16, flags: u16, header: &[u8], body: impl FnOnce(&mut Attributes<'_>)) -> io::Result<()> {
    let mut writer = Writer::new();
    writer.request(kind, flags | ACK, header, body);
    let answers = Socket::open(None)?.transact(&writer)?;
    match answers.first() {
        Some(answer) => answer.refused.map_or(Ok(()), |errno| Err(errno.into())),
        None => Err(io::Error::other("the kernel did not answer")),
    }
}
