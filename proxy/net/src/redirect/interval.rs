//! Sets of ports and addresses as the kernel's interval sets want them: sorted, merged, half open.
//!
//! Invariant: the intervals of a set neither overlap nor touch; the kernel refuses a set whose do.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// A port or a range of ports: `80`, `8000-8999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The first port.
    pub first: u16,
    /// The last port, itself included.
    pub last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// A text that is neither a port nor a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a port (80) nor a range of ports (8000-8999) within 1-65535")]
pub struct BadPorts(String);

impl FromStr for Ports {
    type Err = BadPorts;
    fn from_str(text: &str) -> Result<Self, BadPorts> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(BadPorts(text.to_owned())),
        }
    }
}

/// What a set's elements are: the kernel sees bytes, a person sees ports or addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Two bytes.
    Port,
    /// Four bytes.
    V4,
    /// Sixteen bytes.
    V6,
}

impl Element {
    /// Length of an element in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Port => 2,
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Length of an element in bits.
    fn bits(self) -> u32 {
        match self {
            Self::Port => u16::BITS,
            Self::V4 => u32::BITS,
            Self::V6 => u128::BITS,
        }
    }

    /// The highest element.
    fn highest(self) -> u128 {
        match self {
            Self::Port => u128::from(u16::MAX),
            Self::V4 => u128::from(u32::MAX),
            Self::V6 => u128::MAX,
        }
    }
}

/// A set of ports or addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    element: Element,
    /// First and last of each interval, both included.
    intervals: Vec<(u128, u128)>,
}

impl Set {
    /// A set of ports.
    pub fn of_ports(ports: &[Ports]) -> Self {
        let all = ports.iter().map(|p| (u128::from(p.first), u128::from(p.last)));
        Self { element: Element::Port, intervals: merge(all.collect()) }
    }

    /// The IPv4 and the IPv6 networks among `networks`, each as a set.
    pub fn of_networks(networks: &[IpNet]) -> (Self, Self) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(n) => v4.push((u32::from(n.network()).into(), u32::from(n.broadcast()).into())),
                IpNet::V6(n) => v6.push((n.network().into(), n.broadcast().into())),
            }
        }
        (
            Self { element: Element::V4, intervals: merge(v4) },
            Self { element: Element::V6, intervals: merge(v6) },
        )
    }

    /// What the elements are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The kernel's elements: where an interval begins, and (`true`) where one has ended. An interval
    /// that reaches the highest value has no end.
    pub fn boundaries(&self) -> impl Iterator<Item = (Vec<u8>, bool)> + '_ {
        let encode = |value: u128| {
            let bytes = value.to_be_bytes();
            bytes.get(bytes.len() - self.element.length()..).unwrap_or_default().to_vec()
        };
        self.intervals.iter().flat_map(move |&(first, last)| {
            let end = (last < self.element.highest()).then(|| (encode(last + 1), true));
            std::iter::once((encode(first), false)).chain(end)
        })
    }

    fn text(&self, value: u128) -> String {
        match self.element {
            Element::Port => value.to_string(),
            Element::V4 => Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)).to_string(),
            Element::V6 => Ipv6Addr::from(value).to_string(),
        }
    }

    /// One value, a network, or a range: whichever says it shortest.
    fn interval_text(&self, first: u128, last: u128) -> String {
        // An interval is a network when its ends differ in their low bits only, and in all of those.
        let host_bits = (first ^ last).count_ones();
        let low_bits = (first ^ last).trailing_ones();
        match self.element {
            _ if first == last => self.text(first),
            Element::V4 | Element::V6 if host_bits == low_bits && first & (first ^ last) == 0 => {
                format!("{}/{}", self.text(first), self.element.bits() - host_bits)
            }
            _ => format!("{}-{}", self.text(first), self.text(last)),
        }
    }
}

/// As nft writes it: braces only around several.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.intervals.iter().map(|&(first, last)| self.interval_text(first, last)).collect();
        match parts.as_slice() {
            [one] => write!(f, "{one}"),
            several => write!(f, "{{ {} }}", several.join(", ")),
        }
    }
}

fn merge(mut intervals: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    intervals.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(intervals.len());
    for (first, last) in intervals {
        match merged.last_mut() {
            Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_single_or_range_and_nothing_else() {
        assert_eq!("80".parse(), Ok(Ports::from(80)));
        assert_eq!("8000-8999".parse(), Ok(Ports { first: 8000, last: 8999 }));
        for text in ["", "0", "0-5", "9-8", "70000", "a", "1-", "-1", "1-2-3"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlapping_and_touching_intervals_become_one() {
        let ports = ["90", "80-85", "83-88", "89", "443"].map(|p| p.parse().unwrap());
        assert_eq!(Set::of_ports(&ports).to_string(), "{ 80-90, 443 }");
        let nets = ["10.1.0.0/16", "10.0.0.0/16", "10.0.3.0/24", "fd00::/8"].map(|n| n.parse().unwrap());
        let (v4, v6) = Set::of_networks(&nets);
        assert_eq!(v4.to_string(), "10.0.0.0/15");
        assert_eq!(v6.to_string(), "fd00::/8");
        let nets = ["10.0.1.0/24", "10.0.2.0/24", "192.0.2.1/32", "0.0.0.0/5"].map(|n| n.parse().unwrap());
        let (v4, _) = Set::of_networks(&nets);
        assert_eq!(v4.to_string(), "{ 0.0.0.0/5, 10.0.1.0-10.0.2.255, 192.0.2.1 }");
        let (v4, _) = Set::of_networks(&["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(v4.to_string(), "0.0.0.0/0");
    }

    #[test]
    fn boundaries_are_half_open_and_the_highest_value_needs_no_end() {
        let set = Set::of_ports(&[Ports::from(80), Ports { first: 65000, last: 65535 }]);
        let boundaries: Vec<_> = set.boundaries().collect();
        let expect = [
            (80_u16.to_be_bytes().to_vec(), false),
            (81_u16.to_be_bytes().to_vec(), true),
            (65000_u16.to_be_bytes().to_vec(), false),
        ];
        assert_eq!(boundaries, expect);
        let (v4, v6) = Set::of_networks(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        assert_eq!(v4.boundaries().collect::<Vec<_>>(), [(vec![0; 4], false)]);
        assert_eq!(v6.boundaries().collect::<Vec<_>>(), [(vec![0; 16], false)]);
    }
}
