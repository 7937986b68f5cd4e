//! A backend, compiled: its endpoints and the traffic policy with every default filled in.
//!
//! Adopt compiles it; balance chooses among its endpoints, connect obeys its limits.
//!
//! Invariant: no field of [`TrafficPolicy`] is "unset"; a default stands here once, with its source.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::invalid::Invalid;
use crate::names::{Identity, Name, WorkloadName};
use crate::spec;

/// The endpoints behind one service port.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The service, `<namespace>/<service>`.
    pub service: Name,
    /// The port of the service.
    pub port: u16,
    /// Protocol the endpoints speak; `Detect`: the downstream's.
    pub protocol: spec::Protocol,
    /// Ready endpoints, sorted by address, each address once.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How to use them.
    pub policy: TrafficPolicy,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The workload, when known.
    pub workload: Option<WorkloadName>,
    /// The identity it must prove; `None`: it has no sidecar, plaintext.
    pub identity: Option<Identity>,
    /// Zone; empty: unknown.
    pub zone: Arc<str>,
    /// Relative weight, at least 1.
    pub weight: u32,
}

/// How clients reach a backend, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// The object; `None`: all defaults.
    pub origin: Option<spec::Origin>,
    /// What the object says itself; the rest are defaults.
    pub given: Given,
    /// Deadline of a TCP connect and TLS handshake.
    pub connect_timeout: Duration,
    /// Connections to one endpoint and worker.
    pub max_connections: u32,
    /// Requests that may wait for a connection, per worker and backend.
    pub max_pending: u32,
    /// Idle upstream connections are closed after this.
    pub idle_timeout: Duration,
    /// Retries.
    pub retry_budget: spec::RetryBudget,
    /// Ejection.
    pub outlier: Outlier,
    /// Service port that serves while the circuit is open or no endpoint is ready.
    pub fallback: Option<Name>,
}

/// A setting of a TrafficPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Setting {
    /// Deadline of a connect.
    ConnectTimeout,
    /// Connections to one endpoint.
    MaxConnections,
    /// Requests that wait.
    MaxPending,
    /// Life of idle connections.
    IdleTimeout,
    /// Retries.
    RetryBudget,
    /// Ejection.
    Outlier,
    /// Who serves while the circuit is open.
    Fallback,
}

/// Which settings a TrafficPolicy makes itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given(u8);

impl Given {
    fn of(spec: &spec::TrafficPolicy) -> Self {
        let rows = [
            (Setting::ConnectTimeout, spec.connect_timeout.is_some()),
            (Setting::MaxConnections, spec.max_connections != 0),
            (Setting::MaxPending, spec.max_pending != 0),
            (Setting::IdleTimeout, spec.idle_timeout.is_some()),
            (Setting::RetryBudget, spec.retry_budget.is_some()),
            (Setting::Outlier, spec.outlier.is_some()),
            (Setting::Fallback, spec.fallback.is_some()),
        ];
        Self(rows.into_iter().filter(|(_, given)| *given).fold(0, |bits, (setting, _)| bits | setting.bit()))
    }

    /// Whether the object makes this setting itself.
    #[must_use]
    pub fn has(self, setting: Setting) -> bool {
        self.0 & setting.bit() != 0
    }
}

impl Setting {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Its field in the object.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "spec.connectTimeout",
            Self::MaxConnections => "spec.limits.maxConnections",
            Self::MaxPending => "spec.limits.maxPendingRequests",
            Self::IdleTimeout => "spec.idleTimeout",
            Self::RetryBudget => "spec.retryBudget",
            Self::Outlier => "spec.outlier",
            Self::Fallback => "spec.fallback",
        }
    }
}

/// Ejection of endpoints that fail, complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive failures before ejection; 0 switches it off.
    pub consecutive_failures: u32,
    /// First ejection time; doubles with each.
    pub base_ejection: Duration,
    /// Longest ejection time.
    pub max_ejection: Duration,
    /// Share of endpoints that may be ejected while there is no fallback, percent.
    pub max_ejected_percent: u32,
}

impl Backend {
    /// Compiles a backend.
    ///
    /// # Errors
    /// `Invalid` when an address occurs twice, or a limit is out of range.
    pub fn compile(spec: &spec::Backend) -> Result<Self, Invalid> {
        let mut endpoints: Vec<_> = spec.endpoints.iter().map(|e| Arc::new(Endpoint::of(e))).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        if let Some(twice) = endpoints.windows(2).find(|pair| pair[0].address == pair[1].address) {
            return Err(Invalid::new("endpoints", format!("{} occurs twice", twice[0].address)));
        }
        if endpoints.len() > MAX_ENDPOINTS {
            return Err(Invalid::new("endpoints", format!("more than {MAX_ENDPOINTS}")));
        }
        Ok(Self {
            service: spec.service.clone(),
            port: spec.port,
            protocol: spec.protocol,
            endpoints,
            policy: TrafficPolicy::of(&spec.policy)?,
        })
    }
}

impl Endpoint {
    /// The endpoint with its weight made definite.
    #[must_use]
    pub fn of(spec: &spec::Endpoint) -> Self {
        Self {
            address: spec.address,
            workload: spec.workload.clone(),
            identity: spec.identity.clone(),
            zone: spec.zone.clone(),
            weight: spec.weight.clamp(1, MAX_WEIGHT),
        }
    }
}

impl TrafficPolicy {
    fn of(spec: &spec::TrafficPolicy) -> Result<Self, Invalid> {
        let outlier = spec.outlier.map_or(Ok(Outlier::default()), |outlier| Outlier::of(&outlier))?;
        let retry_budget = spec.retry_budget.unwrap_or(DEFAULT_RETRY_BUDGET);
        if retry_budget.percent > 100 {
            return Err(Invalid::new("policy.retryBudget.percent", "more than 100"));
        }
        let connect_timeout = spec.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        if connect_timeout.is_zero() {
            return Err(Invalid::new("policy.connectTimeout", "zero: no connection could ever be made"));
        }
        Ok(Self {
            origin: spec.origin.clone(),
            given: Given::of(spec),
            connect_timeout,
            max_connections: given_or(spec.max_connections, DEFAULT_MAX_CONNECTIONS),
            max_pending: given_or(spec.max_pending, DEFAULT_MAX_PENDING),
            idle_timeout: spec.idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
            retry_budget,
            outlier,
            fallback: spec.fallback.clone(),
        })
    }
}

impl Default for TrafficPolicy {
    /// What applies to a backend without a policy.
    fn default() -> Self {
        Self {
            origin: None,
            given: Given::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_pending: DEFAULT_MAX_PENDING,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            retry_budget: DEFAULT_RETRY_BUDGET,
            outlier: Outlier::default(),
            fallback: None,
        }
    }
}

impl Outlier {
    fn of(spec: &spec::Outlier) -> Result<Self, Invalid> {
        let default = Self::default();
        let base_ejection = spec.base_ejection.unwrap_or(default.base_ejection);
        if base_ejection.is_zero() {
            return Err(Invalid::new("policy.outlier.baseEjection", "zero"));
        }
        if spec.max_ejected_percent > 100 {
            return Err(Invalid::new("policy.outlier.maxEjectedPercent", "more than 100"));
        }
        Ok(Self {
            consecutive_failures: spec.consecutive_failures,
            base_ejection,
            // A base above the maximum is taken as the maximum's wish for "always this long".
            max_ejection: spec.max_ejection.unwrap_or(default.max_ejection).max(base_ejection),
            max_ejected_percent: given_or(spec.max_ejected_percent, default.max_ejected_percent),
        })
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_failures: DEFAULT_CONSECUTIVE_FAILURES,
            base_ejection: DEFAULT_BASE_EJECTION,
            max_ejection: DEFAULT_MAX_EJECTION,
            max_ejected_percent: DEFAULT_MAX_EJECTED_PERCENT,
        }
    }
}

fn given_or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

/// Source: Envoy's cluster default, 5 s including TLS; Istio takes 10 s.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Source: Envoy's circuit breaker default, 1024; Istio leaves it unlimited.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 1024;
/// Source: Envoy's circuit breaker default, 1024; Istio leaves it unlimited.
pub const DEFAULT_MAX_PENDING: u32 = 1024;
/// Below the hour of Envoy and Istio: most applications close idle connections earlier, and a reused
/// connection that closes is a failed request. Source: hyper's own pool default, 90 s.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Source: Finagle and Linkerd's service profiles, 20 % and 10 a second; Envoy has 20 % and 3.
pub const DEFAULT_RETRY_BUDGET: spec::RetryBudget = spec::RetryBudget { percent: 20, min_per_second: 10 };
/// Source: Envoy's outlier detection, 5 consecutive failures; Linkerd takes 7, and off by default.
pub const DEFAULT_CONSECUTIVE_FAILURES: u32 = 5;
/// Shorter than Envoy's 30 s because a half-open probe, not a full share of traffic, follows.
/// Source: between Linkerd's 1 s and Envoy's 30 s.
pub const DEFAULT_BASE_EJECTION: Duration = Duration::from_secs(10);
/// Source: Envoy's outlier detection, 300 s.
pub const DEFAULT_MAX_EJECTION: Duration = Duration::from_secs(300);
/// At least half of the endpoints stay. Source: Envoy's panic threshold, 50 %; its 10 % for ejection
/// rounds to none in small services.
pub const DEFAULT_MAX_EJECTED_PERCENT: u32 = 50;
/// Endpoints of one backend. Source: our choice; a third of the pods of the largest cluster that
/// Kubernetes promises (150,000), and far under the id space of the balancer.
pub const MAX_ENDPOINTS: usize = 50_000;
/// Keeps sums of weights inside 64 bits. Source: the Gateway API's bound on backend weights.
const MAX_WEIGHT: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(policy: spec::TrafficPolicy) -> spec::Backend {
        let endpoint = |last: u8, weight| spec::Endpoint {
            address: ([10, 0, 0, last], 80).into(),
            workload: None,
            identity: None,
            zone: Arc::from(""),
            weight,
        };
        spec::Backend {
            service: "shop/cart".into(),
            port: 80,
            protocol: spec::Protocol::Http1,
            endpoints: vec![endpoint(2, 0), endpoint(1, 7)],
            policy,
        }
    }

    #[test]
    fn endpoints_are_sorted_and_weigh_at_least_one() {
        let backend = Backend::compile(&spec(spec::TrafficPolicy::default())).unwrap();
        let weights: Vec<_> = backend.endpoints.iter().map(|endpoint| endpoint.weight).collect();
        assert_eq!(weights, [7, 1]);
        assert_eq!(backend.policy, TrafficPolicy::default());
    }

    #[test]
    fn what_is_absent_or_zero_takes_its_default() {
        let outlier = spec::Outlier { base_ejection: Some(Duration::from_secs(400)), ..Default::default() };
        let policy = spec::TrafficPolicy { outlier: Some(outlier), max_pending: 3, ..Default::default() };
        let policy = Backend::compile(&spec(policy)).unwrap().policy;
        assert!(policy.given.has(Setting::MaxPending) && policy.given.has(Setting::Outlier));
        assert!(!policy.given.has(Setting::MaxConnections) && !policy.given.has(Setting::Fallback));
        assert_eq!((policy.max_pending, policy.max_connections), (3, DEFAULT_MAX_CONNECTIONS));
        assert_eq!(policy.outlier.consecutive_failures, 0, "a written zero switches ejection off");
        assert_eq!(policy.outlier.max_ejected_percent, 50);
        assert_eq!(policy.outlier.max_ejection, Duration::from_secs(400));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        let mut twice = spec(spec::TrafficPolicy::default());
        twice.endpoints[1].address = twice.endpoints[0].address;
        assert_eq!(Backend::compile(&twice).unwrap_err().place, "endpoints");
        let budget = spec::RetryBudget { percent: 101, min_per_second: 0 };
        let outlier = |outlier| spec::TrafficPolicy { outlier: Some(outlier), ..Default::default() };
        for (policy, place) in [
            (
                spec::TrafficPolicy { connect_timeout: Some(Duration::ZERO), ..Default::default() },
                "policy.connectTimeout",
            ),
            (
                spec::TrafficPolicy { retry_budget: Some(budget), ..Default::default() },
                "policy.retryBudget.percent",
            ),
            (
                outlier(spec::Outlier { base_ejection: Some(Duration::ZERO), ..Default::default() }),
                "policy.outlier.baseEjection",
            ),
            (
                outlier(spec::Outlier { max_ejected_percent: 101, ..Default::default() }),
                "policy.outlier.maxEjectedPercent",
            ),
        ] {
            assert_eq!(Backend::compile(&spec(policy)).unwrap_err().place, place);
        }
    }
}
