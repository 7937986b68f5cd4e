//! One rule: where matching requests go.
//!
//! Found by the table; read by `outbound`.
//!
//! Invariant: weights were summed and deadlines resolved against the outbound's when it was compiled.

use std::sync::Arc;
use std::time::Duration;

use crate::invalid::Invalid;
use crate::outbound::{Backends, Label, Timeouts};
use crate::route::filter::Filters;
use crate::spec;

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) label: Label,
    /// Place in the object.
    pub(crate) index: u32,
    /// The rule itself says how long an exchange may take.
    pub(crate) own_deadline: bool,
    pub(crate) filters: Filters,
    pub(crate) shares: Vec<Share>,
    /// Sum of the weights.
    pub(crate) total: i64,
    pub(crate) timeouts: Timeouts,
}

/// A weighted backend.
#[derive(Debug)]
pub(crate) struct Share {
    /// Index of the backend, or why the reference is invalid.
    pub(crate) backend: Result<u16, Arc<str>>,
    pub(crate) weight: u32,
    pub(crate) filters: Filters,
}

impl Rule {
    pub(crate) fn compile(
        route: &Arc<str>,
        outbound: &spec::Outbound,
        spec: &spec::Rule,
        backends: &mut Backends,
    ) -> Result<Self, Invalid> {
        let prefix = only_prefix(&spec.matches);
        let filters = Filters::compile(&spec.filters, prefix)?;
        let mut shares = Vec::with_capacity(spec.backends.len());
        for (at, backend) in spec.backends.iter().enumerate() {
            let place = format!("backendRefs[{at}]");
            shares.push(Share::compile(backend, prefix, backends).map_err(|e| e.within(&place))?);
        }
        u16::try_from(shares.len()).map_err(|_| Invalid::new("backendRefs", "more than 65,535"))?;
        let name = if spec.name.is_empty() { spec.index.to_string().into() } else { spec.name.clone() };
        Ok(Self {
            label: Label { route: route.clone(), rule: name },
            index: spec.index,
            own_deadline: spec.request_timeout.is_some(),
            filters,
            total: shares.iter().map(|share| i64::from(share.weight)).sum(),
            shares,
            timeouts: Timeouts {
                request: nonzero(spec.request_timeout.or(outbound.request_timeout)),
                attempt: nonzero(spec.backend_request_timeout),
            },
        })
    }
}

impl Share {
    fn compile(
        spec: &spec::WeightedBackend,
        prefix: Option<&str>,
        backends: &mut Backends,
    ) -> Result<Self, Invalid> {
        if spec.weight > MAX_WEIGHT {
            return Err(Invalid::new("weight", format!("{} is more than {MAX_WEIGHT}", spec.weight)));
        }
        let backend = match &spec.backend {
            Ok(name) => Ok(backends.index(name)?),
            Err(why) => Err(Arc::from(why.as_str())),
        };
        Ok(Self { backend, weight: spec.weight, filters: Filters::compile(&spec.filters, prefix)? })
    }
}

/// The prefix of a rule that has one match, by prefix; the only one that may be replaced.
fn only_prefix(matches: &[spec::Match]) -> Option<&str> {
    match matches {
        [only] => match &only.path {
            Some(spec::PathMatch::Prefix(prefix)) => Some(prefix),
            Some(spec::PathMatch::Exact(_) | spec::PathMatch::Regex(_)) => None,
            // An empty match is the prefix "/". Source: Gateway API, HTTPRouteRule.matches.
            None => Some("/"),
        },
        [] => Some("/"),
        _ => None,
    }
}

/// Source: Gateway API, HTTPRouteTimeouts: zero disables.
fn nonzero(span: Option<Duration>) -> Option<Duration> {
    span.filter(|span| !span.is_zero())
}

/// Source: Gateway API, BackendRef.weight.
const MAX_WEIGHT: u32 = 1_000_000;
