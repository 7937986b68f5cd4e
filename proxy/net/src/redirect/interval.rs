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
}

/// As nft writes an anonymous set.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .intervals
            .iter()
            .map(|&(first, last)| match first == last {
                true => self.text(first),
                false => format!("{}-{}", self.text(first), self.text(last)),
            })
            .collect();
        write!(f, "{{ {} }}", parts.join(", "))
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
        assert_eq!(v4.to_string(), "{ 10.0.0.0-10.1.255.255 }");
        assert_eq!(v6.to_string(), "{ fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff }");
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
