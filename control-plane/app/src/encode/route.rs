//! Outbound resources and their routes, as messages.
//!
//! Invariant: as `encode`, field by field.

use weft_control_plane_core::config;
use weft_proto::v1;

use super::{origin, protocol, protocol_by, span};

pub(super) fn outbound(it: &config::Outbound) -> v1::Outbound {
    let route_kind = match it.route_kind {
        None => v1::RouteKind::Unspecified,
        Some(config::RouteKind::Http) => v1::RouteKind::Http,
        Some(config::RouteKind::Grpc) => v1::RouteKind::Grpc,
    };
    v1::Outbound {
        service: it.service.clone(),
        port: it.port.into(),
        protocol: protocol(it.protocol),
        route_kind: route_kind.into(),
        routes: it.routes.iter().map(route).collect(),
        default_backend: it.default_backend.clone(),
        request_timeout: it.request_timeout.map(span),
        protocol_by: protocol_by(it.protocol_by),
    }
}

fn route(it: &config::Route) -> v1::Route {
    v1::Route { origin: Some(origin(&it.origin)), rules: it.rules.iter().map(rule).collect() }
}

fn rule(it: &config::Rule) -> v1::Rule {
    v1::Rule {
        name: it.name.clone(),
        index: it.index,
        matches: it.matches.iter().map(one_match).collect(),
        filters: it.filters.iter().map(filter).collect(),
        backends: it.backends.iter().map(weighted).collect(),
        request_timeout: it.request_timeout.map(span),
        backend_request_timeout: it.backend_request_timeout.map(span),
    }
}

fn weighted(it: &config::WeightedBackend) -> v1::WeightedBackend {
    v1::WeightedBackend {
        backend: it.backend.clone(),
        invalid: it.invalid.clone(),
        weight: it.weight,
        filters: it.filters.iter().map(filter).collect(),
    }
}

fn one_match(it: &config::Match) -> v1::Match {
    use v1::r#match::Path;
    let path = match &it.path {
        config::PathMatch::Exact(path) => Path::Exact(path.clone()),
        config::PathMatch::Prefix(path) => Path::Prefix(path.clone()),
        config::PathMatch::Regex(path) => Path::Regex(path.clone()),
    };
    let grpc = |it: &config::GrpcMatch| v1::GrpcMatch {
        service: it.service.clone(),
        method: it.method.clone(),
        regex: it.regex,
    };
    v1::Match {
        // A condition on service and method is one on the path already.
        path: it.grpc.is_none().then_some(path),
        method: it.method.clone(),
        headers: it.headers.iter().map(key_match).collect(),
        query: it.query.iter().map(key_match).collect(),
        grpc: it.grpc.as_ref().map(grpc),
    }
}

fn key_match(it: &config::KeyMatch) -> v1::KeyMatch {
    use v1::key_match::Value;
    let value = match &it.value {
        config::ValueMatch::Exact(value) => Value::Exact(value.clone()),
        config::ValueMatch::Regex(value) => Value::Regex(value.clone()),
    };
    v1::KeyMatch { name: it.name.clone(), value: Some(value) }
}

fn filter(it: &config::Filter) -> v1::Filter {
    use v1::filter::Kind;
    let kind = match it {
        config::Filter::RequestHeaders(it) => Kind::RequestHeaders(headers(it)),
        config::Filter::ResponseHeaders(it) => Kind::ResponseHeaders(headers(it)),
        config::Filter::Redirect(it) => Kind::Redirect(v1::Redirect {
            status: it.status.into(),
            scheme: it.scheme.clone(),
            hostname: it.hostname.clone(),
            port: it.port.into(),
            path: it.path.as_ref().map(path_rewrite),
        }),
        config::Filter::Rewrite(it) => Kind::Rewrite(v1::Rewrite {
            hostname: it.hostname.clone(),
            path: it.path.as_ref().map(path_rewrite),
        }),
        config::Filter::Reply(it) => {
            Kind::Reply(v1::FixedReply { status: it.status.into(), reason: it.reason.clone() })
        }
    };
    v1::Filter { kind: Some(kind) }
}

fn headers(it: &config::HeaderModifier) -> v1::HeaderModifier {
    let field = |it: &config::Field| v1::Field { name: it.name.clone(), value: it.value.clone() };
    v1::HeaderModifier {
        set: it.set.iter().map(field).collect(),
        add: it.add.iter().map(field).collect(),
        remove: it.remove.clone(),
    }
}

fn path_rewrite(it: &config::PathRewrite) -> v1::PathRewrite {
    use v1::path_rewrite::Kind;
    let kind = match it {
        config::PathRewrite::Full(path) => Kind::Full(path.clone()),
        config::PathRewrite::Prefix(path) => Kind::Prefix(path.clone()),
    };
    v1::PathRewrite { kind: Some(kind) }
}
