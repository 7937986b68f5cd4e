//! The forms that values of settings and annotations take: ports, networks, quantities, spans, images,
//! filters.
//!
//! Where it stands: under `config` and `annotations`.
//!
//! Invariant: what is accepted here is accepted by the sidecar and by the API server too.

use std::net::IpAddr;

use ipnet::IpNet;

/// Choices of the access log. Source: `weft-proxy run --access-log`.
pub(super) const ACCESS_LOG: &[&str] = &["off", "errors", "all", "mesh"];

/// Ports in a row; first and last are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRange {
    /// Whether the port is one of these.
    pub fn holds(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// Reads ports and ranges with commas, e.g. "25,8000-8999".
///
/// # Errors
/// Nothing at all, or an item that is no port and no range.
pub fn ports(text: &str) -> Result<Vec<PortRange>, String> {
    items(text, "a port (1 to 65535) or a range (8000-8999)", |item| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let range = PortRange { first: number(first)?, last: number(last)? };
        (range.first <= range.last).then_some(range)
    })
}

pub(super) fn optional_ports(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { ports(text).map(|_| ()) }
}

/// Reads networks and addresses with commas.
pub(super) fn cidrs(text: &str) -> Result<Vec<IpNet>, String> {
    items(text, "a network (10.0.0.0/8, fd00::/8) or an address", |item| {
        item.parse::<IpNet>().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from))
    })
}

pub(super) fn optional_cidrs(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { cidrs(text).map(|_| ()) }
}

fn items<T>(text: &str, form: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let item = |item: &str| read(item.trim()).ok_or_else(|| format!("{item:?} is not {form}"));
    text.split(',').map(item).collect()
}

/// Reads a span of one unit: 500ms, 5s, 2m, 1h. Gives milliseconds.
pub(super) fn span(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    millis.filter(|_| unit > 0).ok_or_else(|| format!("{text:?} is not a span of time (500ms, 5s, 2m, 1h)"))
}

/// Reads a Kubernetes quantity. Source: the resource.Quantity type of apimachinery.
pub(super) fn quantity(text: &str) -> Result<f64, String> {
    let refuse = || format!("{text:?} is not a quantity (10m, 0.5, 20Mi, 1Gi)");
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = text.split_at_checked(end).ok_or_else(refuse)?;
    let factor = SUFFIXES.iter().find(|(known, _)| *known == suffix).map(|(_, factor)| *factor);
    let plain = number.bytes().any(|byte| byte.is_ascii_digit());
    let number = number.parse::<f64>().ok().filter(|_| plain).ok_or_else(refuse)?;
    Ok(number * factor.ok_or_else(refuse)?)
}

const SUFFIXES: &[(&str, f64)] = &[
    ("", 1.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
];

/// An image's name: no spaces, nothing but what a reference may hold.
pub(super) fn image(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let edges = |text: &str| {
        let loose = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        loose(text.as_bytes().first()) || loose(text.as_bytes().last())
    };
    if text.is_empty() || !text.bytes().all(allowed) || edges(text) {
        return Err(format!("{text:?} is not the name of an image"));
    }
    Ok(())
}

/// A filter of the diagnostic log: a level, or target=level, with commas.
pub(super) fn log_filter(text: &str) -> Result<(), String> {
    let level = |text: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|known| text.eq_ignore_ascii_case(known))
    };
    let target = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    };
    let form = "a level (off, error, warn, info, debug, trace) or target=level";
    items(text, form, |item| match item.split_once('=') {
        Some((of, to)) => (target(of) && level(to)).then_some(()),
        None => level(item).then_some(()),
    })
    .map(|_| ())
}

/// One of a few words.
pub(super) fn one_of(text: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&text) { Ok(()) } else { Err(format!("{text:?} is none of {}", known.join(", "))) }
}

/// How many letters two names differ in (insertions, removals, replacements).
pub(super) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        for (index, theirs) in other.iter().enumerate() {
            let above = row.get(index + 1).map_or(usize::MAX, |cost| cost + 1);
            let left = next.last().map_or(usize::MAX, |cost| cost + 1);
            let replaced = row.get(index).map_or(usize::MAX, |cost| cost + usize::from(letter != *theirs));
            next.push(above.min(left).min(replaced));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}
