//! A rule's matches, as written → as the sidecar takes them.
//!
//! Where it stands: *validate*, for each rule of a route. Precedence between matches is the sidecar's.
//!
//! Invariant: a match that comes out means what the user wrote; where that is in doubt none comes out.

use std::collections::BTreeSet;

use super::text;
use crate::{
    config::{GrpcMatch, KeyMatch, Match, PathMatch, RouteKind, ValueMatch},
    model::{GrpcMethod, MatchFact, MethodFact, TypedValue, ValueFact},
};

/// Matches of one rule; none written means everything.
pub(crate) fn lower(kind: RouteKind, facts: &[MatchFact]) -> Result<Vec<Match>, String> {
    if facts.len() > MAX_MATCHES {
        return Err(format!("{} matches; a rule may have {MAX_MATCHES}", facts.len()));
    }
    if facts.is_empty() {
        return Ok(vec![one(kind, &MatchFact::default())?]);
    }
    let at = |(index, fact)| one(kind, fact).map_err(|error| format!("match {index}: {error}"));
    facts.iter().enumerate().map(at).collect()
}

fn one(kind: RouteKind, fact: &MatchFact) -> Result<Match, String> {
    let (method, grpc) = match (kind, &fact.method) {
        (_, None) => (String::new(), None),
        (RouteKind::Http, Some(MethodFact::Http(method))) => (method.clone(), None),
        (RouteKind::Grpc, Some(MethodFact::Grpc(method))) => (String::new(), Some(grpc_method(method)?)),
        (_, Some(other)) => return Err(format!("method {other:?} does not belong here")),
    };
    Ok(Match {
        path: path(fact.path.as_ref())?,
        method,
        headers: values("header", &fact.headers, str::to_ascii_lowercase)?,
        query: values("query parameter", &fact.query_params, str::to_owned)?,
        grpc,
    })
}

/// The path's condition. Default: prefix "/". A prefix's trailing slash means nothing.
fn path(fact: Option<&TypedValue>) -> Result<PathMatch, String> {
    let kind = fact.and_then(|fact| fact.kind.as_deref()).unwrap_or("PathPrefix");
    let value = fact.and_then(|fact| fact.value.as_deref()).unwrap_or("/");
    match kind {
        "Exact" => text::path(value).map(|()| PathMatch::Exact(value.to_owned())),
        "PathPrefix" => {
            text::path(value)?;
            let elements = value.trim_end_matches('/');
            Ok(PathMatch::Prefix(if elements.is_empty() { "/" } else { elements }.to_owned()))
        }
        "RegularExpression" => text::regex(value).map(|()| PathMatch::Regex(value.to_owned())),
        other => Err(format!("path match type {other:?} is not supported")),
    }
}

/// Conditions on named values; of several for one name the first counts. Source: Gateway API.
fn values(what: &str, facts: &[ValueFact], name: fn(&str) -> String) -> Result<Vec<KeyMatch>, String> {
    if facts.len() > MAX_VALUES {
        return Err(format!("{} {what} matches; a match may have {MAX_VALUES}", facts.len()));
    }
    let mut seen = BTreeSet::new();
    let mut matches = Vec::with_capacity(facts.len());
    for fact in facts {
        text::token(what, &fact.name)?;
        let value = match fact.kind.as_deref().unwrap_or("Exact") {
            "Exact" => ValueMatch::Exact(fact.value.clone()),
            "RegularExpression" => {
                text::regex(&fact.value).map(|()| ValueMatch::Regex(fact.value.clone()))?
            }
            other => return Err(format!("{what} match type {other:?} is not supported")),
        };
        let name = name(&fact.name);
        if seen.insert(name.clone()) {
            matches.push(KeyMatch { name, value });
        }
    }
    Ok(matches)
}

fn grpc_method(fact: &GrpcMethod) -> Result<GrpcMatch, String> {
    let service = fact.service.clone().unwrap_or_default();
    let method = fact.method.clone().unwrap_or_default();
    let regex = match fact.kind.as_deref().unwrap_or("Exact") {
        "Exact" => false,
        "RegularExpression" => true,
        other => return Err(format!("method match type {other:?} is not supported")),
    };
    if service.is_empty() && method.is_empty() {
        return Err("a method match names a service, a method, or both".to_owned());
    }
    for text in [&service, &method] {
        if regex {
            text::regex(text)?;
        } else if text.contains('/') || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(format!("{text:?} is no gRPC service or method"));
        }
    }
    Ok(GrpcMatch { service, method, regex })
}

/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_MATCHES: usize = 64;
/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_VALUES: usize = 16;
