//! Outbound resources and their routes, from the wire to the core's words.
//!
//! Invariant: as `decode`: what is not known is refused; whether a path or an expression is sound is
//! the core's to say when it compiles.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use weft_proto::v1;
use weft_proxy_core::{Invalid, Name, spec};

use super::decode::{
    Read, known, not_known, origin, port, protocol, protocol_by, service, service_port, span,
};

/// Reads how to call one service port.
pub(super) fn outbound(wire: v1::Outbound) -> Read<spec::Outbound> {
    let kind = match known("route_kind", wire.route_kind)? {
        v1::RouteKind::Unspecified => spec::RouteKind::None,
        v1::RouteKind::Http => spec::RouteKind::Http,
        v1::RouteKind::Grpc => spec::RouteKind::Grpc,
    };
    let default_backend = match wire.default_backend.as_str() {
        "" => None,
        name => Some(service_port("default_backend", name)?),
    };
    Ok(spec::Outbound {
        service: service("service", wire.service)?,
        port: port("port", wire.port)?,
        protocol: protocol("protocol", wire.protocol)?,
        protocol_by: protocol_by(wire.protocol_by),
        kind,
        routes: wire.routes.into_iter().map(route).collect::<Read<_>>()?,
        default_backend,
        request_timeout: span("request_timeout", wire.request_timeout)?,
    })
}

fn route(wire: v1::Route) -> Read<spec::Route> {
    let origin = origin(wire.origin).map_err(|invalid| invalid.within("routes"))?;
    let rule = |wire: v1::Rule| {
        let place = format!("{origin}, rule {}", wire.index);
        rule(wire).map_err(|invalid| invalid.within(&place))
    };
    let rules = wire.rules.into_iter().map(rule).collect::<Read<_>>()?;
    Ok(spec::Route { origin, rules })
}

fn rule(wire: v1::Rule) -> Read<spec::Rule> {
    Ok(spec::Rule {
        name: Arc::from(wire.name),
        index: wire.index,
        matches: each("matches", wire.matches, one_match)?,
        filters: each("filters", wire.filters, filter)?,
        backends: each("backends", wire.backends, weighted)?,
        request_timeout: span("request_timeout", wire.request_timeout)?,
        backend_request_timeout: span("backend_request_timeout", wire.backend_request_timeout)?,
    })
}

/// Reads a list; a refusal says which element.
pub(super) fn each<W, T>(field: &str, wire: Vec<W>, read: impl Fn(W) -> Read<T>) -> Read<Vec<T>> {
    let one = |(at, wire)| read(wire).map_err(|invalid| invalid.within(&format!("{field}[{at}]")));
    wire.into_iter().enumerate().map(one).collect()
}

fn one_match(wire: v1::Match) -> Read<spec::Match> {
    use v1::r#match::Path;
    let grpc = wire.grpc.map(|wire| spec::GrpcMatch {
        service: wire.service,
        method: wire.method,
        regex: wire.regex,
    });
    let path = match wire.path {
        Some(Path::Exact(path)) => Some(spec::PathMatch::Exact(path)),
        Some(Path::Prefix(path)) => Some(spec::PathMatch::Prefix(path)),
        Some(Path::Regex(path)) => Some(spec::PathMatch::Regex(path)),
        None if grpc.is_some() => None,
        // Taken as "any path", a kind that a later version adds would widen the rule.
        None => return Err(not_known("path")),
    };
    Ok(spec::Match {
        path,
        method: if wire.method.is_empty() { None } else { Some(method("method", &wire.method)?) },
        headers: each("headers", wire.headers, key_match)?,
        query: each("query", wire.query, key_match)?,
        grpc,
    })
}

fn key_match(wire: v1::KeyMatch) -> Read<spec::KeyMatch> {
    use v1::key_match::Value;
    let value = match wire.value {
        Some(Value::Exact(value)) => spec::ValueMatch::Exact(value),
        Some(Value::Regex(value)) => spec::ValueMatch::Regex(value),
        None => return Err(not_known("value")),
    };
    Ok(spec::KeyMatch { name: wire.name, value })
}

/// A method as the contract writes it: a token in upper case.
pub(super) fn method(field: &str, text: &str) -> Read<Method> {
    let upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| upper)
        .ok_or_else(|| Invalid::new(field, format!("{text:?} is not a method in upper case")))
}

fn weighted(wire: v1::WeightedBackend) -> Read<spec::WeightedBackend> {
    if wire.weight > MAX_SHARE {
        return Err(Invalid::new("weight", format!("more than {MAX_SHARE}")));
    }
    let backend: Result<Name, String> = match (wire.backend.as_str(), wire.invalid.as_str()) {
        (_, reason) if !reason.is_empty() => Err(wire.invalid),
        ("", _) => Err("invalid reference".to_owned()),
        (name, _) => Ok(service_port("backend", name)?),
    };
    Ok(spec::WeightedBackend {
        backend,
        weight: wire.weight,
        filters: each("filters", wire.filters, filter)?,
    })
}

fn filter(wire: v1::Filter) -> Read<spec::Filter> {
    use v1::filter::Kind;
    Ok(match wire.kind {
        Some(Kind::RequestHeaders(wire)) => spec::Filter::RequestHeaders(headers(wire)?),
        Some(Kind::ResponseHeaders(wire)) => spec::Filter::ResponseHeaders(headers(wire)?),
        Some(Kind::Redirect(wire)) => spec::Filter::Redirect(redirect(wire)?),
        Some(Kind::Rewrite(wire)) => spec::Filter::Rewrite(spec::Rewrite {
            hostname: given(wire.hostname),
            path: wire.path.map(path_rewrite).transpose()?,
        }),
        Some(Kind::Reply(wire)) => {
            spec::Filter::Reply(spec::FixedReply { status: status(wire.status)?, reason: wire.reason })
        }
        None => return Err(not_known("kind")),
    })
}

fn headers(wire: v1::HeaderModifier) -> Read<spec::HeaderModifier> {
    Ok(spec::HeaderModifier {
        set: each("set", wire.set, field)?,
        add: each("add", wire.add, field)?,
        remove: each("remove", wire.remove, |name| field_name(&name))?,
    })
}

fn field(wire: v1::Field) -> Read<(HeaderName, HeaderValue)> {
    let name = field_name(&wire.name)?;
    let value = HeaderValue::from_str(&wire.value)
        .map_err(|_| Invalid::new("value", format!("{:?} is not the value of a header field", wire.value)))?;
    Ok((name, value))
}

fn field_name(text: &str) -> Read<HeaderName> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Invalid::new("name", format!("{text:?} is not the name of a header field")))
}

fn redirect(wire: v1::Redirect) -> Read<spec::Redirect> {
    let scheme = match wire.scheme.as_str() {
        "" => None,
        "http" => Some(spec::Scheme::Http),
        "https" => Some(spec::Scheme::Https),
        other => return Err(Invalid::new("scheme", format!("{other:?} is neither http nor https"))),
    };
    Ok(spec::Redirect {
        status: status(wire.status)?,
        scheme,
        hostname: given(wire.hostname),
        port: if wire.port == 0 { None } else { Some(port("port", wire.port)?) },
        path: wire.path.map(path_rewrite).transpose()?,
    })
}

fn path_rewrite(wire: v1::PathRewrite) -> Read<spec::PathRewrite> {
    use v1::path_rewrite::Kind;
    match wire.kind {
        Some(Kind::Full(path)) => Ok(spec::PathRewrite::Full(path)),
        Some(Kind::Prefix(path)) => Ok(spec::PathRewrite::Prefix(path)),
        None => Err(not_known("path")),
    }
}

fn status(wire: u32) -> Read<StatusCode> {
    u16::try_from(wire)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.as_u16() >= 200)
        .ok_or_else(|| Invalid::new("status", format!("{wire} is not a final HTTP status")))
}

fn given(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// Largest share of a backend. Source: the Gateway API's bound on `weight`.
const MAX_SHARE: u32 = 1_000_000;
