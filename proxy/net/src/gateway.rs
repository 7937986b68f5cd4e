//! The default gateways of this network namespace: where a pod's node stands, on networks where pods hang
//! on a bridge or a router of their node.
//!
//! Read by *subscribe* at the start, from `/proc/net`; the kernel keeps it for each network namespace.
//!
//! Invariant: what cannot be read is no gateway; nothing here fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTF_GATEWAY`: the route goes by a gateway. Source: linux/route.h.
const BY_GATEWAY: u32 = 2;

/// The gateways of all default routes, of both families, without those that are link-local.
#[must_use]
pub fn gateways() -> Vec<IpAddr> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    let v4 = v4.lines().filter_map(of_ipv4).map(IpAddr::from);
    let v6 = v6.lines().filter_map(of_ipv6).map(IpAddr::from);
    let mut found: Vec<IpAddr> = v4.chain(v6).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// `eth0 00000000 0100F40A 0003 0 0 0 00000000 0 0 0`: addresses in the machine's order of bytes.
fn of_ipv4(line: &str) -> Option<Ipv4Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "00000000", gateway, flags, _, _, _, "00000000", ..] = fields.as_slice() else { return None };
    let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
    (is_by_gateway(flags) && !gateway.is_unspecified() && !gateway.is_link_local()).then_some(gateway)
}

/// Destination, its length, source, its length, gateway, metric, two counts, flags, interface.
fn of_ipv6(line: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "00", _, "00", gateway, _, _, _, flags, ..] = fields.as_slice() else { return None };
    let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
    (is_by_gateway(flags) && !gateway.is_unspecified() && !gateway.is_unicast_link_local()).then_some(gateway)
}

fn is_by_gateway(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & BY_GATEWAY != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_routes_gateway_is_one() {
        let gateway = format!("{:08X}", u32::from_ne_bytes([10, 244, 0, 1]));
        let link_local = format!("{:08X}", u32::from_ne_bytes([169, 254, 1, 1]));
        for (line, expected) in [
            (
                format!("eth0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\t0\t0"),
                Some([10, 244, 0, 1].into()),
            ),
            (format!("eth0\t00000000\t{link_local}\t0003\t0\t0\t0\t00000000\t0\t0\t0"), None),
            (format!("eth0\t0000F40A\t{gateway}\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0"), None),
            (format!("eth0\t00000000\t{gateway}\t0003\t0\t0\t0\t000000FF\t0\t0\t0"), None),
            ("eth0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0".to_owned(), None),
            ("Iface\tDestination\tGateway \tFlags".to_owned(), None),
            ("eth0\t00000000\tnonsense\t0003\t0\t0\t0\t00000000\t0\t0\t0".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(of_ipv4(&line), expected, "{line}");
        }
        let zero = "00000000000000000000000000000000";
        let line = |destination: &str, gateway: &str, flags: &str| {
            format!("{destination} 00 {zero} 00 {gateway} 00000400 00000001 00000000 {flags}     eth0")
        };
        let node = "fd880001000000000000000000000001";
        assert_eq!(of_ipv6(&line(zero, node, "00000003")), "fd88:1::1".parse().ok());
        assert_eq!(of_ipv6(&line(zero, "fe800000000000000000000000000001", "00000003")), None);
        assert_eq!(of_ipv6(&line(zero, zero, "00200200")), None);
        assert_eq!(of_ipv6(&line(zero, node, "00000003").replacen(" 00 ", " 40 ", 1)), None);
    }
}
