//! Backends with their traffic policies, and authorization policies, from the wire to the core's words.
//!
//! Invariant: as `decode`: what is not known is refused, here above all: a condition that is not
//! understood must never be dropped from a policy.

use std::sync::Arc;

use ipnet::IpNet;
use weft_proto::v1;
use weft_proxy_core::{Invalid, spec};

use super::decode::{Read, endpoint, known, not_known, origin, port, protocol, service, service_port, span};
use super::route::{each, method};

/// Reads the endpoints behind one service port.
pub(super) fn backend(wire: v1::Backend) -> Read<spec::Backend> {
    let policy = match wire.policy {
        Some(policy) => traffic(policy).map_err(|invalid| invalid.within("policy"))?,
        None => spec::TrafficPolicy::default(),
    };
    Ok(spec::Backend {
        service: service("service", wire.service)?,
        port: port("port", wire.port)?,
        protocol: protocol("protocol", wire.protocol)?,
        endpoints: each("endpoints", wire.endpoints, endpoint)?,
        policy,
    })
}

fn traffic(wire: v1::TrafficPolicy) -> Read<spec::TrafficPolicy> {
    let origin = wire.origin.map(|wire| origin(Some(wire))).transpose()?;
    let retry_budget = wire
        .retry_budget
        .map(|wire| spec::RetryBudget { percent: wire.percent, min_per_second: wire.min_per_second });
    let fallback = match wire.fallback.as_str() {
        "" => None,
        name => Some(service_port("fallback", name)?),
    };
    Ok(spec::TrafficPolicy {
        origin,
        connect_timeout: span("connect_timeout", wire.connect_timeout)?,
        max_connections: wire.max_connections,
        max_pending: wire.max_pending,
        idle_timeout: span("idle_timeout", wire.idle_timeout)?,
        retry_budget,
        outlier: wire.outlier.map(outlier).transpose()?,
        fallback,
    })
}

fn outlier(wire: v1::Outlier) -> Read<spec::Outlier> {
    Ok(spec::Outlier {
        consecutive_failures: wire.consecutive_failures,
        base_ejection: span("outlier.base_ejection", wire.base_ejection)?,
        max_ejection: span("outlier.max_ejection", wire.max_ejection)?,
        max_ejected_percent: wire.max_ejected_percent,
    })
}

/// Reads one AuthorizationPolicy.
pub(super) fn authorization(wire: v1::Authorization) -> Read<spec::Authorization> {
    let action = match known("action", wire.action)? {
        v1::Action::Unspecified => return Err(not_known("action")),
        v1::Action::Allow => spec::Action::Allow,
        v1::Action::Deny => spec::Action::Deny,
    };
    Ok(spec::Authorization {
        origin: origin(wire.origin)?,
        action,
        shadow: wire.shadow,
        rules: each("rules", wire.rules, rule)?,
    })
}

fn rule(wire: v1::AuthorizationRule) -> Read<spec::AuthorizationRule> {
    Ok(spec::AuthorizationRule {
        name: Arc::from(wire.name),
        from: each("from", wire.from, source)?,
        to: each("to", wire.to, operation)?,
    })
}

fn source(wire: v1::Source) -> Read<spec::Source> {
    Ok(spec::Source {
        identities: wire.identities,
        namespaces: wire.namespaces,
        service_accounts: wire.service_accounts,
        cidrs: each("cidrs", wire.cidrs, |text| block(&text))?,
    })
}

fn block(text: &str) -> Read<IpNet> {
    text.parse().map_err(|_| Invalid::new("", format!("{text:?} is not an address block, e.g. 10.0.0.0/8")))
}

fn operation(wire: v1::Operation) -> Read<spec::Operation> {
    Ok(spec::Operation {
        ports: each("ports", wire.ports, |wire| port("", wire))?,
        methods: each("methods", wire.methods, |text| method("", &text))?,
        paths: wire.paths,
    })
}
