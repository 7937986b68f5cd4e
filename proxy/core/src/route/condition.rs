//! Conditions of a match beyond the path's place in the table.
//!
//! Under `table`, which tries them in the order of precedence.
//!
//! Invariant: a condition costs no allocation, except a regular expression on a repeated field or on
//! an escaped parameter.

use http::{HeaderMap, HeaderName, Method, header};
use regex::bytes::{Regex, RegexBuilder};

use crate::head::{Head, host_of};
use crate::invalid::Invalid;
use crate::path;
use crate::spec::{KeyMatch, Match, ValueMatch};

/// All conditions of one match but an exact or prefix path.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    pub(crate) method: Option<Method>,
    pub(crate) headers: Box<[(Field, Value)]>,
    pub(crate) query: Box<[(Box<[u8]>, Value)]>,
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// The method.
    Method,
    /// The condition on a header field at this place.
    Header(usize),
    /// The condition on a query parameter at this place.
    Query(usize),
}

#[derive(Debug)]
pub(crate) enum Field {
    /// Host, which is `:authority` in HTTP/2.
    Authority,
    Named(HeaderName),
}

#[derive(Debug)]
pub(crate) enum Value {
    Exact(Box<[u8]>),
    Regex(Regex),
}

impl Conditions {
    pub(crate) fn compile(spec: &Match) -> Result<Self, Invalid> {
        let headers = distinct(&spec.headers, |one, other| one.eq_ignore_ascii_case(other));
        let query = distinct(&spec.query, |one, other| one == other);
        Ok(Self {
            method: spec.method.clone(),
            headers: headers
                .map(|(at, key)| field(key).map_err(|e| e.within(&format!("headers[{at}]"))))
                .collect::<Result<_, _>>()?,
            query: query
                .map(|(at, key)| {
                    let value =
                        Value::compile(&key.value).map_err(|e| e.within(&format!("queryParams[{at}]")))?;
                    Ok((key.name.as_bytes().into(), value))
                })
                .collect::<Result<_, Invalid>>()?,
        })
    }

    /// Method, header and query counts: how specific the match is. Source: Gateway API, HTTPRouteRule.
    pub(crate) fn rank(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rank() == (false, 0, 0)
    }

    pub(crate) fn hold(&self, head: &Head<'_>) -> bool {
        self.unmet(head).is_none()
    }

    /// The first condition that does not hold; `None`: all do.
    pub(crate) fn unmet(&self, head: &Head<'_>) -> Option<Unmet> {
        if self.method.as_ref().is_some_and(|method| method != head.method) {
            return Some(Unmet::Method);
        }
        let header = self.headers.iter().position(|(field, value)| !field.holds(value, head));
        if let Some(at) = header {
            return Some(Unmet::Header(at));
        }
        let query = self.query.iter().position(|(name, value)| !parameter_holds(name, value, head.query));
        query.map(Unmet::Query)
    }
}

impl Field {
    fn holds(&self, value: &Value, head: &Head<'_>) -> bool {
        match self {
            Self::Authority => authority_holds(value, head.authority),
            Self::Named(name) => field_holds(name, value, head.headers),
        }
    }
}

impl Value {
    fn compile(spec: &ValueMatch) -> Result<Self, Invalid> {
        Ok(match spec {
            ValueMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            ValueMatch::Regex(pattern) => Self::Regex(whole(pattern)?),
        })
    }
}

/// A pattern that must match the whole of a text.
pub(crate) fn whole(pattern: &str) -> Result<Regex, Invalid> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
    // Alone first: `a)|(b` is no pattern, but would become one between the brackets.
    build(pattern)
        .and_then(|_| build(&format!(r"\A(?:{pattern})\z")))
        .map_err(|problem| Invalid::new("regex", problem.to_string()))
}

fn field(key: &KeyMatch) -> Result<(Field, Value), Invalid> {
    let value = Value::compile(&key.value)?;
    if key.name.eq_ignore_ascii_case("host") || key.name == ":authority" {
        return Ok((Field::Authority, value));
    }
    match HeaderName::from_bytes(key.name.as_bytes()) {
        Ok(name) => Ok((Field::Named(name), value)),
        Err(_) => Err(Invalid::new("name", format!("{:?} is no field name", key.name))),
    }
}

/// The first condition of each name, with its place. Source: Gateway API, HTTPRouteMatch: of equal
/// names the first counts.
fn distinct(keys: &[KeyMatch], same: fn(&str, &str) -> bool) -> impl Iterator<Item = (usize, &KeyMatch)> {
    keys.iter()
        .enumerate()
        .filter(move |(at, key)| !keys[..*at].iter().any(|earlier| same(&earlier.name, &key.name)))
}

/// Hosts compare without regard to case; a condition without a port does not look at the port.
fn authority_holds(value: &Value, authority: &str) -> bool {
    match value {
        Value::Exact(text) => {
            text.eq_ignore_ascii_case(authority.as_bytes())
                || text.eq_ignore_ascii_case(host_of(authority).as_bytes())
        }
        Value::Regex(regex) => regex.is_match(authority.as_bytes()),
    }
}

/// Repeated fields are one, joined by a comma. Source: RFC 9110 §5.3.
fn field_holds(name: &HeaderName, value: &Value, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(name).into_iter();
    let Some(first) = values.next() else { return false };
    let repeated = values.next().is_some();
    match (value, repeated) {
        (Value::Exact(text), false) => **text == *first.as_bytes(),
        (Value::Regex(regex), false) => regex.is_match(first.as_bytes()),
        (Value::Exact(text), true) => **text == *joined(name, headers),
        (Value::Regex(regex), true) => regex.is_match(&joined(name, headers)),
    }
}

fn joined(name: &HeaderName, headers: &HeaderMap) -> Vec<u8> {
    let by: &[u8] = if name == header::COOKIE { b"; " } else { b"," };
    let values: Vec<&[u8]> = headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes).collect();
    values.join(by)
}

/// The first value of the parameter counts. Source: Gateway API, HTTPQueryParamMatch.
fn parameter_holds(name: &[u8], value: &Value, query: Option<&str>) -> bool {
    let pairs = query.unwrap_or("").as_bytes().split(|&byte| byte == b'&');
    let split = |pair: &'_ [u8]| pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
    let first = pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_at(split(pair)))
        .find(|(key, _)| path::decoded(key).eq(name.iter().copied()));
    let Some((_, tail)) = first else { return false };
    let sent = tail.strip_prefix(b"=").unwrap_or(tail);
    match value {
        Value::Exact(text) => path::decoded(sent).eq(text.iter().copied()),
        Value::Regex(regex) if memchr::memchr2(b'%', b'+', sent).is_none() => regex.is_match(sent),
        Value::Regex(regex) => regex.is_match(&path::decoded(sent).collect::<Vec<u8>>()),
    }
}

/// Memory of one compiled pattern. Source: a tenth of the `regex` crate's own default, 10 MiB; far
/// above what names and paths need.
const MAX_PATTERN: usize = 1 << 20;
