//! Filters, as written → as the sidecar takes them, or why not.
//!
//! Where it stands: *validate*, for each rule and each backendRef of a route.
//!
//! Invariant: the order is the user's. One filter that cannot be taken spoils the whole list: none
//! may be skipped.

use std::collections::BTreeSet;

use super::{Problem, text};
use crate::{
    config::{Field, Filter, HeaderModifier, Match, PathMatch, PathRewrite, Redirect, Rewrite},
    model::{FilterFact, HeaderChange, HeaderField, PathChange, RedirectFact, RewriteFact},
    report::Reason,
};

/// Filters in order. `matches` are the rule's, for replacing the matched prefix.
pub(crate) fn lower(facts: &[FilterFact], matches: &[Match]) -> Result<Vec<Filter>, Problem> {
    if facts.len() > MAX_FILTERS {
        return Err(Problem::unsupported(format!(
            "{} filters; at most {MAX_FILTERS} are allowed",
            facts.len()
        )));
    }
    let mut kinds = BTreeSet::new();
    let mut filters = Vec::with_capacity(facts.len());
    for fact in facts {
        let filter = one(fact, matches).map_err(Problem::unsupported)?;
        if !kinds.insert(fact.kind.as_str()) {
            return Err(Problem::unsupported(format!("filter {} is there twice", fact.kind)));
        }
        filters.push(filter);
    }
    if kinds.contains("RequestRedirect") && kinds.contains("URLRewrite") {
        let text = "RequestRedirect and URLRewrite exclude each other".to_owned();
        return Err(Problem { reason: Reason::IncompatibleFilters, text });
    }
    Ok(filters)
}

fn one(fact: &FilterFact, matches: &[Match]) -> Result<Filter, String> {
    let missing = || format!("filter {} lacks its stanza", fact.kind);
    match fact.kind.as_str() {
        "RequestHeaderModifier" => {
            let change = fact.request_header_modifier.as_ref().ok_or_else(missing)?;
            Ok(Filter::RequestHeaders(headers(change)?))
        }
        "ResponseHeaderModifier" => {
            let change = fact.response_header_modifier.as_ref().ok_or_else(missing)?;
            Ok(Filter::ResponseHeaders(headers(change)?))
        }
        "RequestRedirect" => {
            let fact = fact.request_redirect.as_ref().ok_or_else(missing)?;
            Ok(Filter::Redirect(redirect(fact, matches)?))
        }
        "URLRewrite" => {
            let fact = fact.url_rewrite.as_ref().ok_or_else(missing)?;
            Ok(Filter::Rewrite(rewrite(fact, matches)?))
        }
        other => Err(format!("filter {other} is not supported yet")),
    }
}

/// Each name once over all three lists: the API server's rule, and what makes the order harmless.
fn headers(change: &HeaderChange) -> Result<HeaderModifier, String> {
    let lists = [change.set.len(), change.add.len(), change.remove.len()];
    if lists.iter().any(|length| *length > MAX_FIELDS) {
        return Err(format!("more than {MAX_FIELDS} header fields in one list"));
    }
    let mut names = BTreeSet::new();
    let mut name = |text: &str| {
        text::token("header", text)?;
        let lower = text.to_ascii_lowercase();
        if names.insert(lower.clone()) { Ok(lower) } else { Err(format!("header {text:?} is there twice")) }
    };
    let mut field = |fact: &HeaderField| {
        text::field_value(&fact.value)?;
        Ok(Field { name: name(&fact.name)?, value: fact.value.clone() })
    };
    let set = change.set.iter().map(&mut field).collect::<Result<_, String>>()?;
    let add = change.add.iter().map(&mut field).collect::<Result<_, String>>()?;
    let remove = change.remove.iter().map(|text| name(text)).collect::<Result<_, String>>()?;
    Ok(HeaderModifier { set, add, remove })
}

fn redirect(fact: &RedirectFact, matches: &[Match]) -> Result<Redirect, String> {
    let status = fact.status_code.unwrap_or(REDIRECT_STATUS);
    let status = REDIRECT_STATUSES.iter().find(|known| i64::from(**known) == status);
    let scheme = fact.scheme.clone().unwrap_or_default();
    if !["", "http", "https"].contains(&scheme.as_str()) {
        return Err(format!("redirect scheme {scheme:?} is not supported"));
    }
    let port = match fact.port {
        None => 0,
        Some(port) => {
            u16::try_from(port).ok().filter(|port| *port != 0).ok_or(format!("{port} is no port"))?
        }
    };
    Ok(Redirect {
        status: *status.ok_or("a redirect's status is 301, 302, 303, 307 or 308")?,
        scheme,
        hostname: host(fact.hostname.as_deref())?,
        port,
        path: fact.path.as_ref().map(|change| path(change, matches)).transpose()?,
    })
}

fn rewrite(fact: &RewriteFact, matches: &[Match]) -> Result<Rewrite, String> {
    Ok(Rewrite {
        hostname: host(fact.hostname.as_deref())?,
        path: fact.path.as_ref().map(|change| path(change, matches)).transpose()?,
    })
}

fn host(name: Option<&str>) -> Result<String, String> {
    let name = name.unwrap_or_default();
    if !name.is_empty() {
        text::hostname(name)?;
    }
    Ok(name.to_owned())
}

fn path(change: &PathChange, matches: &[Match]) -> Result<PathRewrite, String> {
    match (change.kind.as_str(), &change.replace_full_path, &change.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), None) => {
            text::replacement(path).map(|()| PathRewrite::Full(path.clone()))
        }
        ("ReplacePrefixMatch", None, Some(prefix)) => {
            if !matches!(matches, [Match { path: PathMatch::Prefix(_), .. }]) {
                return Err("ReplacePrefixMatch needs exactly one match, of type PathPrefix".to_owned());
            }
            text::replacement(prefix).map(|()| PathRewrite::Prefix(prefix.clone()))
        }
        (kind @ ("ReplaceFullPath" | "ReplacePrefixMatch"), _, _) => {
            Err(format!("a path change of type {kind} has the field of that name, and no other"))
        }
        (other, _, _) => Err(format!("path change {other:?} is not supported")),
    }
}

/// Source: Gateway API, HTTPRoute and GRPCRoute.
const MAX_FILTERS: usize = 16;
/// Source: Gateway API, HTTPHeaderFilter.
const MAX_FIELDS: usize = 16;
/// Source: Gateway API, HTTPRequestRedirectFilter.
const REDIRECT_STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
/// Source: Gateway API, default of HTTPRequestRedirectFilter.
const REDIRECT_STATUS: i64 = 302;
