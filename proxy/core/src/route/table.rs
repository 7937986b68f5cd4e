//! Which rule takes a request: all matches of all routes, laid out so that few are tried.
//!
//! Under `outbound`. For HTTPRoutes the order is exact path, regular expression (longer pattern
//! first), longer prefix; then method given, more header conditions, more query conditions; then the
//! older route, the earlier rule, the earlier match. For GRPCRoutes exact service and method by their
//! lengths, then regular expressions by theirs, then matches on a method or headers alone.
//!
//! Source: Gateway API, HTTPRouteRule.matches and GRPCRouteRule.matches; the place of regular
//! expressions is left to implementations: between exact and prefix, as Envoy Gateway has it.
//!
//! Invariant: the first entry that holds, in the order of precedence, wins; nothing depends on the
//! order of a hash map.

use std::cmp::Reverse;

use regex::bytes::Regex;
use rustc_hash::FxHashMap;

use crate::head::Head;
use crate::hygiene::Refusal;
use crate::invalid::Invalid;
use crate::outbound::rule_place;
use crate::path;
use crate::route::condition::{Conditions, whole};
use crate::spec;

/// All matches of one outbound.
#[derive(Debug)]
pub(crate) struct Table {
    kind: spec::RouteKind,
    /// The rule that takes everything, when nothing else is there.
    pub(super) always: Option<u16>,
    pub(super) exact: FxHashMap<Box<str>, Vec<Entry>>,
    pub(super) regex: Vec<(Pattern, Entry)>,
    pub(super) prefix: FxHashMap<Box<str>, Vec<Entry>>,
    longest_prefix: usize,
    /// Matches of any path.
    pub(super) any: Vec<Entry>,
}

/// One match of one rule.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) rule: u16,
    /// Place of the match within the rule.
    pub(crate) at: u16,
    pub(crate) conditions: Conditions,
}

#[derive(Debug)]
pub(crate) enum Pattern {
    Path(Regex),
    /// gRPC service and method.
    Call(Option<Regex>, Option<Regex>),
    /// gRPC method of any service.
    Method(Box<str>),
}

/// Where a match stands in the table, and how it is ordered there.
enum Place {
    Exact(String),
    Regex(Pattern, (u8, usize, usize)),
    Prefix(String),
    Any,
}

impl Table {
    pub(crate) fn compile(spec: &spec::Outbound) -> Result<Self, Invalid> {
        let mut table = Self {
            kind: spec.kind,
            always: None,
            exact: FxHashMap::default(),
            regex: Vec::new(),
            prefix: FxHashMap::default(),
            longest_prefix: 0,
            any: Vec::new(),
        };
        let mut patterns = Vec::new();
        let mut index = 0u16;
        for route in &spec.routes {
            for rule in &route.rules {
                table.add_rule(index, rule, &mut patterns).map_err(|e| e.within(&rule_place(route, rule)))?;
                index = index.wrapping_add(1);
            }
        }
        table.sort(patterns);
        Ok(table)
    }

    /// The rule that takes the request.
    pub(crate) fn find(&self, head: &Head<'_>) -> Result<Option<u16>, Refusal> {
        if self.always.is_some() {
            return Ok(self.always);
        }
        let path = head.canonical_path()?;
        Ok(self.first(&path, |entry| entry.conditions.hold(head).then_some(entry.rule)))
    }

    /// Offers the entries that the path fits in the order of precedence, until one is taken. Who decides and
    /// who explains look at them through this.
    pub(crate) fn first<T>(&self, path: &str, mut take: impl FnMut(&Entry) -> Option<T>) -> Option<T> {
        self.exact
            .get(path)
            .and_then(|entries| entries.iter().find_map(&mut take))
            .or_else(|| match self.kind {
                // A gRPC prefix is a service named exactly.
                spec::RouteKind::Grpc => {
                    self.first_prefix(path, &mut take).or_else(|| self.first_regex(path, &mut take))
                }
                spec::RouteKind::Http | spec::RouteKind::None => {
                    self.first_regex(path, &mut take).or_else(|| self.first_prefix(path, &mut take))
                }
            })
            .or_else(|| self.any.iter().find_map(&mut take))
    }

    fn first_regex<T>(&self, path: &str, take: &mut impl FnMut(&Entry) -> Option<T>) -> Option<T> {
        let fitting = self.regex.iter().filter(|(pattern, _)| pattern.fits(path));
        fitting.map(|(_, entry)| entry).find_map(take)
    }

    /// Cuts the path back at its slashes, longest first.
    fn first_prefix<T>(&self, path: &str, take: &mut impl FnMut(&Entry) -> Option<T>) -> Option<T> {
        if self.prefix.is_empty() {
            return None;
        }
        let mut rest = path.strip_suffix('/').unwrap_or(path);
        while !rest.is_empty() {
            let entries = if rest.len() <= self.longest_prefix { self.prefix.get(rest) } else { None };
            if let Some(taken) = entries.and_then(|all| all.iter().find_map(&mut *take)) {
                return Some(taken);
            }
            rest = &rest[..rest.rfind('/')?];
        }
        None
    }

    fn add_rule(
        &mut self,
        index: u16,
        rule: &spec::Rule,
        patterns: &mut Vec<((u8, usize, usize), Pattern, Entry)>,
    ) -> Result<(), Invalid> {
        let everything = [spec::Match::default()];
        // Source: Gateway API: no matches mean the prefix "/".
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches[..] };
        for (at, spec) in matches.iter().enumerate() {
            let place = format!("matches[{at}]");
            let found = Place::of(self.kind, spec).map_err(|e| e.within(&place))?;
            let conditions = Conditions::compile(spec).map_err(|e| e.within(&place))?;
            let at = u16::try_from(at).unwrap_or(u16::MAX);
            let entry = Entry { rule: index, at, conditions };
            match found {
                Place::Exact(path) => self.exact.entry(path.into()).or_default().push(entry),
                Place::Prefix(path) => {
                    self.longest_prefix = self.longest_prefix.max(path.len());
                    self.prefix.entry(path.into()).or_default().push(entry);
                }
                Place::Any => self.any.push(entry),
                Place::Regex(pattern, rank) => patterns.push((rank, pattern, entry)),
            }
        }
        Ok(())
    }

    /// Puts every list in the order of precedence; entries came in the order of routes and rules, and
    /// the sorts keep it among equals.
    fn sort(&mut self, mut patterns: Vec<((u8, usize, usize), Pattern, Entry)>) {
        let lists = self.exact.values_mut().chain(self.prefix.values_mut()).chain([&mut self.any]);
        for list in lists {
            list.sort_by_key(|entry| Reverse(entry.conditions.rank()));
        }
        patterns.sort_by_key(|(rank, _, entry)| Reverse((*rank, entry.conditions.rank())));
        self.regex = patterns.into_iter().map(|(_, pattern, entry)| (pattern, entry)).collect();
        let alone = self.exact.is_empty() && self.regex.is_empty() && self.prefix.is_empty();
        self.always =
            self.any.first().filter(|first| alone && first.conditions.is_empty()).map(|first| first.rule);
    }
}

impl Pattern {
    fn fits(&self, path: &str) -> bool {
        match self {
            Self::Path(regex) => regex.is_match(path.as_bytes()),
            Self::Call(service, method) => call(path).is_some_and(|(called, by)| {
                service.as_ref().is_none_or(|regex| regex.is_match(called.as_bytes()))
                    && method.as_ref().is_none_or(|regex| regex.is_match(by.as_bytes()))
            }),
            Self::Method(method) => call(path).is_some_and(|(_, by)| by == &**method),
        }
    }
}

impl Place {
    fn of(kind: spec::RouteKind, spec: &spec::Match) -> Result<Self, Invalid> {
        match (&spec.grpc, &spec.path) {
            (Some(_), Some(_)) => Err(Invalid::new("grpc", "together with a path")),
            (Some(_), None) if kind != spec::RouteKind::Grpc => Err(Invalid::new("grpc", "in no GRPCRoute")),
            (Some(grpc), None) => Self::of_call(grpc),
            (None, Some(path)) => Self::of_path(path),
            (None, None) => Ok(Self::Any),
        }
    }

    fn of_path(path: &spec::PathMatch) -> Result<Self, Invalid> {
        Ok(match path {
            spec::PathMatch::Exact(path) => Self::Exact(canonical(path)?),
            spec::PathMatch::Prefix(prefix) => {
                let path = canonical(if prefix.is_empty() { "/" } else { prefix })?;
                match path.strip_suffix('/').unwrap_or(&path) {
                    "" => Self::Any,
                    path => Self::Prefix(path.to_owned()),
                }
            }
            spec::PathMatch::Regex(pattern) => {
                Self::Regex(Pattern::Path(whole(pattern)?), (0, pattern.len(), 0))
            }
        })
    }

    fn of_call(grpc: &spec::GrpcMatch) -> Result<Self, Invalid> {
        let pattern = |text: &str| if text.is_empty() { Ok(None) } else { whole(text).map(Some) };
        Ok(match (grpc.service.as_str(), grpc.method.as_str()) {
            ("", "") => Self::Any,
            (service, method) if grpc.regex => Self::Regex(
                Pattern::Call(pattern(service)?, pattern(method)?),
                (1, service.len(), method.len()),
            ),
            ("", method) => Self::Regex(Pattern::Method(named(method)?.into()), (0, 0, method.len())),
            (service, "") => Self::Prefix(format!("/{}", named(service)?)),
            (service, method) => Self::Exact(format!("/{}/{}", named(service)?, named(method)?)),
        })
    }
}

/// Service and method of a gRPC path.
fn call(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

fn named(name: &str) -> Result<&str, Invalid> {
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        Ok(name)
    } else {
        Err(Invalid::new("grpc", format!("{name:?} is no name of a service or method")))
    }
}

fn canonical(path: &str) -> Result<String, Invalid> {
    match path::canonical(path) {
        Ok(form) if form.starts_with('/') => Ok(form.into_owned()),
        _ => Err(Invalid::new("path", format!("{path:?} is not an absolute, unambiguous path"))),
    }
}
