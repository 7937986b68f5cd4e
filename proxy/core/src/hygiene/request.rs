//! Requests: heads that are refused, and what is taken out before they are forwarded.
//!
//! First thing after a head was parsed, last thing before it is sent.
//!
//! Invariant: refuses rather than repairs whatever two readers could read in two ways.

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use super::fields::{self, Class, class};
use super::{Keep, Refusal};
use crate::path;
use crate::reason::Reason;

/// Checks a request head.
///
/// # Errors
/// A refusal that names the first thing found wrong.
pub fn check_request(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let seen = Seen::of(headers)?;
    let multiplexed = version >= Version::HTTP_2;
    seen.check_framing(version)?;
    check_target(method, uri, multiplexed)?;
    check_host(uri, version, seen.host)?;
    if multiplexed && seen.connection {
        return Err(Refusal::of(Reason::MalformedRequest));
    }
    Ok(())
}

/// Takes out of a request what must not travel on.
pub fn scrub_request(headers: &mut HeaderMap, keep: Keep) {
    let mut hop = false;
    let mut own = false;
    for name in headers.keys() {
        match class(name) {
            Class::Connection | Class::Te | Class::Upgrade | Class::Hop => hop = true,
            Class::Own => own = true,
            Class::Host | Class::ContentLength | Class::TransferEncoding | Class::EndToEnd => {}
        }
    }
    if hop {
        let trailers = fields::elements(headers, &header::TE).any(|te| te.eq_ignore_ascii_case(b"trailers"));
        fields::drop_hop(headers, keep.upgrade);
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if own && !keep.own {
        fields::drop_own(headers);
    }
}

/// The protocol that an HTTP/1.1 request asks to upgrade to, if it may be passed on.
///
/// HTTP/2 and TLS are between neighbours and never passed on; the request then goes on without.
#[must_use]
pub fn upgrade(version: Version, headers: &HeaderMap) -> Option<&HeaderValue> {
    let asked = headers.get(header::UPGRADE)?;
    let mut values = fields::elements(headers, &header::UPGRADE);
    let (first, second) = (values.next()?, values.next());
    let named =
        fields::elements(headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    let between_neighbours = [&b"h2c"[..], b"h2"].iter().any(|name| first.eq_ignore_ascii_case(name))
        || first.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"tls/"));
    (version == Version::HTTP_11 && named && second.is_none() && !between_neighbours).then_some(asked)
}

/// Whether `authority` is `host` or `host:port`, without userinfo, path or junk.
///
/// Narrower than RFC 3986: a host is a DNS name or an address; what else the grammar allows no
/// service is called.
#[must_use]
pub fn is_valid_authority(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let host_ok = match authority.starts_with('[') {
        true => host.parse::<std::net::Ipv6Addr>().is_ok(),
        false => {
            !host.is_empty()
                && host.len() <= MAX_HOST
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~'))
        }
    };
    host_ok && port.is_none_or(is_valid_port)
}

fn is_valid_port(port: &str) -> bool {
    (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What one walk over the fields found.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a HeaderValue>,
    length: bool,
    encoding: Option<&'a HeaderValue>,
    connection: bool,
}

impl<'a> Seen<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut seen = Self::default();
        for (name, value) in headers {
            match class(name) {
                Class::Host => match seen.host.replace(value) {
                    None => {}
                    Some(_) => return Err(Refusal::of(Reason::MalformedHost)),
                },
                Class::ContentLength => {
                    let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
                    if seen.length || !digits {
                        return Err(Refusal::closing(Reason::MalformedFraming));
                    }
                    seen.length = true;
                }
                Class::TransferEncoding => match seen.encoding.replace(value) {
                    None => {}
                    Some(_) => return Err(Refusal::closing(Reason::MalformedFraming)),
                },
                Class::Connection => seen.connection = true,
                Class::Te | Class::Upgrade | Class::Hop | Class::Own | Class::EndToEnd => {}
            }
        }
        Ok(seen)
    }

    /// Source: RFC 9112 §6.1 and §6.3.
    fn check_framing(&self, version: Version) -> Result<(), Refusal> {
        match self.encoding {
            None => Ok(()),
            Some(encoding)
                if version == Version::HTTP_11
                    && !self.length
                    && encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") =>
            {
                Ok(())
            }
            Some(_) => Err(Refusal::closing(Reason::MalformedFraming)),
        }
    }
}

fn check_target(method: &Method, uri: &Uri, multiplexed: bool) -> Result<(), Refusal> {
    if let Some(scheme) = uri.scheme_str()
        && !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
    {
        return Err(Refusal::of(Reason::MalformedRequest));
    }
    if method == Method::CONNECT {
        let port = uri.authority().is_some_and(|authority| authority.port_u16().is_some());
        // Extended CONNECT (RFC 8441) has a scheme and a path, and no port of its own.
        let extended = multiplexed && uri.scheme().is_some();
        return if port || extended { Ok(()) } else { Err(Refusal::of(Reason::MalformedHost)) };
    }
    match uri.path() {
        "*" if method == Method::OPTIONS => Ok(()),
        "" | "*" => Err(Refusal::of(Reason::MalformedRequest)),
        path => path::canonical(path).map(|_| ()).map_err(|_| Refusal::of(Reason::MalformedPath)),
    }
}

/// Source: RFC 9112 §3.2, RFC 9113 §8.3.1.
fn check_host(uri: &Uri, version: Version, host: Option<&HeaderValue>) -> Result<(), Refusal> {
    let malformed = Err(Refusal::of(Reason::MalformedHost));
    let host = match host.map(HeaderValue::to_str) {
        None => None,
        Some(Ok(host)) if is_valid_authority(host) => Some(host),
        Some(_) => return malformed,
    };
    let target = uri.authority().map(http::uri::Authority::as_str);
    match (target, host) {
        (Some(target), _) if !is_valid_authority(target) => malformed,
        (Some(target), Some(host)) if !same_authority(target, host, uri) => malformed,
        (Some(_), None) if version == Version::HTTP_11 => malformed,
        (None, None) if version > Version::HTTP_10 => malformed,
        _ => Ok(()),
    }
}

/// Equal but for case and a default port.
fn same_authority(one: &str, other: &str, uri: &Uri) -> bool {
    let default = match uri.scheme_str() {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => ":443",
        _ => ":80",
    };
    let bare = |authority: &'_ str| authority.strip_suffix(default).map_or(authority.len(), str::len);
    one[..bare(one)].eq_ignore_ascii_case(&other[..bare(other)])
}

/// Source: RFC 1035 §2.3.4.
const MAX_HOST: usize = 255;
