//! Backends, their traffic policies, and authorization policies, as messages.
//!
//! Invariant: as `encode`, field by field.

use weft_control_plane_core::config;
use weft_proto::v1;

use super::{endpoint, origin, protocol, span};

pub(super) fn backend(it: &config::Backend) -> v1::Backend {
    v1::Backend {
        service: it.service.clone(),
        port: it.port.into(),
        protocol: protocol(it.protocol),
        endpoints: it.endpoints.iter().map(endpoint).collect(),
        policy: it.policy.as_ref().map(traffic),
    }
}

fn traffic(it: &config::TrafficPolicy) -> v1::TrafficPolicy {
    let budget =
        |it: &config::RetryBudget| v1::RetryBudget { percent: it.percent, min_per_second: it.min_per_second };
    let outlier = |it: &config::Outlier| v1::Outlier {
        consecutive_failures: it.consecutive_failures,
        base_ejection: Some(span(it.base_ejection)),
        max_ejection: Some(span(it.max_ejection)),
        max_ejected_percent: it.max_ejected_percent,
    };
    v1::TrafficPolicy {
        origin: Some(origin(&it.origin)),
        connect_timeout: it.connect_timeout.map(span),
        max_connections: it.max_connections,
        max_pending: it.max_pending,
        idle_timeout: it.idle_timeout.map(span),
        retry_budget: it.retry_budget.as_ref().map(budget),
        outlier: it.outlier.as_ref().map(outlier),
        fallback: it.fallback.clone(),
    }
}

pub(super) fn authorization(it: &config::Authorization) -> v1::Authorization {
    let action = match it.action {
        config::Action::Allow => v1::Action::Allow,
        config::Action::Deny => v1::Action::Deny,
    };
    v1::Authorization {
        origin: Some(origin(&it.origin)),
        action: action.into(),
        shadow: it.shadow,
        rules: it.rules.iter().map(rule).collect(),
    }
}

fn rule(it: &config::AuthorizationRule) -> v1::AuthorizationRule {
    let source = |it: &config::Source| v1::Source {
        identities: it.identities.clone(),
        namespaces: it.namespaces.clone(),
        service_accounts: it.service_accounts.clone(),
        cidrs: it.cidrs.clone(),
    };
    let operation = |it: &config::Operation| v1::Operation {
        ports: it.ports.iter().copied().map(u32::from).collect(),
        methods: it.methods.clone(),
        paths: it.paths.clone(),
    };
    v1::AuthorizationRule {
        name: it.name.clone(),
        from: it.from.iter().map(source).collect(),
        to: it.to.iter().map(operation).collect(),
    }
}
