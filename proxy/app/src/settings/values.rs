//! Text forms of single settings: addresses, listeners, spans of time.
//!
//! Invariant: each message names the form that was expected and shows an example.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;
use weft_proto::names::ServicePort;

/// Why a text is not the value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {expected}")]
pub struct BadValue {
    text: String,
    expected: &'static str,
}

fn bad(text: &str, expected: &'static str) -> BadValue {
    BadValue { text: text.to_owned(), expected }
}

/// Where the control plane listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// DNS name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for ControlPlane {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refuse =
            || bad(text, "HOST:PORT, e.g. weft-control-plane.weft-system.svc:15010 or [fd00::7]:15010");
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port: u16 = port.parse().map_err(|_| refuse())?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            None if is_host(host) => host,
            _ => return Err(refuse()),
        };
        if port == 0 {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// A DNS name or an IPv4 address; what else resolves is left to the resolver.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl std::fmt::Display for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for ControlPlane {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A listener that stands for one service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplicitOutbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it stands for.
    #[serde(serialize_with = "super::as_text")]
    pub service: ServicePort,
}

impl FromStr for ExplicitOutbound {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refuse = || bad(text, "LISTEN=NAMESPACE/SERVICE:PORT, e.g. 127.0.10.1:80=shop/catalog:80");
        let (listen, service) = text.split_once('=').ok_or_else(refuse)?;
        Ok(Self {
            listen: listen.parse().map_err(|_| refuse())?,
            service: service.parse().map_err(|_| refuse())?,
        })
    }
}

/// A listener that stands for one port of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplicitInbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub target: SocketAddr,
    /// The port that policy sees.
    pub port: u16,
}

impl FromStr for ExplicitInbound {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refuse = || {
            bad(
                text,
                "LISTEN=TARGET[#PORT], e.g. 127.0.10.1:8080=127.0.0.1:18081 or 127.0.10.1:0=127.0.0.1:18081#8080",
            )
        };
        let (listen, rest) = text.split_once('=').ok_or_else(refuse)?;
        let listen: SocketAddr = listen.parse().map_err(|_| refuse())?;
        let (target, port) = match rest.split_once('#') {
            Some((target, port)) => (target, port.parse().map_err(|_| refuse())?),
            None => (rest, listen.port()),
        };
        let target: SocketAddr = target.parse().map_err(|_| refuse())?;
        if port == 0 || target.port() == 0 {
            return Err(refuse());
        }
        Ok(Self { listen, target, port })
    }
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogChoice {
    /// None.
    Off,
    /// Refusals, resets and server errors.
    Errors,
    /// Every request and connection.
    All,
    /// What the Mesh resource says.
    Mesh,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogSink {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

impl FromStr for AccessLogSink {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            "" => Err(bad(text, "a path, or - for standard output")),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

impl Serialize for AccessLogSink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Stdout => serializer.serialize_str("-"),
            Self::File(path) => serializer.collect_str(&path.display()),
        }
    }
}

/// Reads a span of time: a whole number and its unit (ms, s, m, h).
pub(crate) fn span(text: &str) -> Result<Duration, BadValue> {
    let refuse = || bad(text, "a span of time above zero with its unit (ms, s, m, h), e.g. 250ms or 10s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    // A year is longer than any deadline that makes sense, and far from the overflow of a timer.
    match milliseconds {
        Some(n) if n > 0 && n <= 365 * 24 * 3_600_000 => Ok(Duration::from_millis(n)),
        _ => Err(refuse()),
    }
}

/// Writes a span of time as [`span`] reads it.
pub(super) fn span_text<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}ms", span.as_millis()))
}
