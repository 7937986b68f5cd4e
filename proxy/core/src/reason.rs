//! Every way in which a request or connection can end without the upstream's own answer.
//!
//! The rooms refuse and fail with these; `record` writes their names into logs and metrics, the relay
//! turns them into an HTTP status, a gRPC code or a reset.
//!
//! Invariant: closed. Each question about a reason is answered by one exhaustive match, so a new
//! reason does not compile before all answers are given.

pub mod advice;

use http::StatusCode;

/// Why a request or connection was refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request line, a field name or a field value breaks the grammar.
    MalformedRequest,
    /// Host or `:authority` is missing, repeated, invalid or contradictory.
    MalformedHost,
    /// Content-Length and Transfer-Encoding do not tell one length.
    MalformedFraming,
    /// The path could be understood differently by different readers.
    MalformedPath,
    /// Field sections larger than the limit.
    HeadersTooLarge,
    /// The request head took longer than its deadline.
    HeaderTimeout,
    /// The path is ambiguous (`%2F`, `;`) while a policy on paths is in force.
    AmbiguousPath,
    /// An upgrade that is not passed on.
    UpgradeRefused,
    /// Routes are attached and none matches.
    NoRoute,
    /// The rule's backend reference is invalid, or it has none.
    InvalidBackend,
    /// A filter could not be resolved or applied.
    InvalidFilter,
    /// The configuration answers this request itself: redirect or fixed reply.
    ConfigReply,
    /// The control plane knows nothing at this destination and the mesh refuses such.
    UnknownDestination,
    /// The configuration for this destination did not arrive in time.
    ConfigTimeout,
    /// The backend has no ready endpoint.
    NoEndpoint,
    /// All endpoints of the backend are ejected.
    CircuitOpen,
    /// Too many requests wait for a connection.
    PendingOverflow,
    /// Too many connections to the endpoint.
    ConnectionOverflow,
    /// Connect or handshake took longer than its deadline.
    ConnectTimeout,
    /// The endpoint refused the connection, or it is unreachable.
    ConnectRefused,
    /// The endpoint closed or reset before its answer was complete.
    UpstreamReset,
    /// The endpoint proved another identity than the one it is known to have.
    WrongIdentity,
    /// The TLS handshake with the endpoint failed.
    TlsFailure,
    /// The endpoint broke its protocol.
    UpstreamProtocol,
    /// The exchange took longer than the rule's deadline.
    RequestTimeout,
    /// The attempt took longer than the rule's deadline for attempts.
    AttemptTimeout,
    /// Nothing moved for longer than the idle limit.
    IdleTimeout,
    /// A rule, or the absence of a rule that allows, denies it.
    DeniedByPolicy,
    /// Plaintext where mTLS is demanded.
    MtlsRequired,
    /// A policy that applies has not arrived: denied until it has.
    PolicyMissing,
    /// The downstream TLS handshake failed.
    DownstreamTls,
    /// The downstream broke its protocol.
    DownstreamProtocol,
    /// A limit of the sidecar is reached.
    OverLimit,
    /// The sidecar is draining.
    Draining,
    /// The downstream went away.
    Cancelled,
    /// A fault of the sidecar itself.
    Internal,
}

/// Who has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller.
    Downstream,
    /// The endpoint.
    Upstream,
    /// Who wrote the policy (or the caller who wants in).
    Policy,
    /// Who wrote the configuration.
    Config,
    /// The mesh.
    Us,
}

impl Blame {
    /// The word in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Policy => "policy",
            Self::Config => "config",
            Self::Us => "us",
        }
    }
}

/// gRPC status codes that the sidecar answers with.
///
/// Source: gRPC core, `doc/statuscodes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum GrpcCode {
    Cancelled = 1,
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl GrpcCode {
    /// The code's name, as gRPC writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The code for an HTTP status, where the answer is the configuration's.
    ///
    /// Source: gRPC core, `doc/http-grpc-status-mapping.md`.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            // The Gateway API demands UNAVAILABLE for an invalid backend, which HTTP answers with 500.
            429 | 500 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// All reasons, in the order of their declaration; for metrics that register every label at once.
pub const ALL: [Reason; 36] = [
    Reason::MalformedRequest,
    Reason::MalformedHost,
    Reason::MalformedFraming,
    Reason::MalformedPath,
    Reason::HeadersTooLarge,
    Reason::HeaderTimeout,
    Reason::AmbiguousPath,
    Reason::UpgradeRefused,
    Reason::NoRoute,
    Reason::InvalidBackend,
    Reason::InvalidFilter,
    Reason::ConfigReply,
    Reason::UnknownDestination,
    Reason::ConfigTimeout,
    Reason::NoEndpoint,
    Reason::CircuitOpen,
    Reason::PendingOverflow,
    Reason::ConnectionOverflow,
    Reason::ConnectTimeout,
    Reason::ConnectRefused,
    Reason::UpstreamReset,
    Reason::WrongIdentity,
    Reason::TlsFailure,
    Reason::UpstreamProtocol,
    Reason::RequestTimeout,
    Reason::AttemptTimeout,
    Reason::IdleTimeout,
    Reason::DeniedByPolicy,
    Reason::MtlsRequired,
    Reason::PolicyMissing,
    Reason::DownstreamTls,
    Reason::DownstreamProtocol,
    Reason::OverLimit,
    Reason::Draining,
    Reason::Cancelled,
    Reason::Internal,
];

impl Reason {
    /// The label in logs and metrics, in snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed_request",
            Self::MalformedHost => "malformed_host",
            Self::MalformedFraming => "malformed_framing",
            Self::MalformedPath => "malformed_path",
            Self::HeadersTooLarge => "headers_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::AmbiguousPath => "ambiguous_path",
            Self::UpgradeRefused => "upgrade_refused",
            Self::NoRoute => "no_route",
            Self::InvalidBackend => "invalid_backend",
            Self::InvalidFilter => "invalid_filter",
            Self::ConfigReply => "config_reply",
            Self::UnknownDestination => "unknown_destination",
            Self::ConfigTimeout => "config_timeout",
            Self::NoEndpoint => "no_endpoint",
            Self::CircuitOpen => "circuit_open",
            Self::PendingOverflow => "pending_overflow",
            Self::ConnectionOverflow => "connection_overflow",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectRefused => "connect_refused",
            Self::UpstreamReset => "upstream_reset",
            Self::WrongIdentity => "wrong_identity",
            Self::TlsFailure => "tls_failure",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::RequestTimeout => "request_timeout",
            Self::AttemptTimeout => "attempt_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::DeniedByPolicy => "denied_by_policy",
            Self::MtlsRequired => "mtls_required",
            Self::PolicyMissing => "policy_missing",
            Self::DownstreamTls => "downstream_tls",
            Self::DownstreamProtocol => "downstream_protocol",
            Self::OverLimit => "over_limit",
            Self::Draining => "draining",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// Who has to look.
    #[must_use]
    pub fn blame(self) -> Blame {
        match self {
            Self::MalformedRequest
            | Self::MalformedHost
            | Self::MalformedFraming
            | Self::MalformedPath
            | Self::HeadersTooLarge
            | Self::HeaderTimeout
            | Self::AmbiguousPath
            | Self::UpgradeRefused
            | Self::IdleTimeout
            | Self::DownstreamTls
            | Self::DownstreamProtocol
            | Self::Cancelled => Blame::Downstream,
            Self::NoRoute
            | Self::InvalidBackend
            | Self::InvalidFilter
            | Self::ConfigReply
            | Self::UnknownDestination => Blame::Config,
            Self::ConfigTimeout | Self::PolicyMissing | Self::OverLimit | Self::Draining | Self::Internal => {
                Blame::Us
            }
            Self::NoEndpoint
            | Self::CircuitOpen
            | Self::PendingOverflow
            | Self::ConnectionOverflow
            | Self::ConnectTimeout
            | Self::ConnectRefused
            | Self::UpstreamReset
            | Self::WrongIdentity
            | Self::TlsFailure
            | Self::UpstreamProtocol
            | Self::RequestTimeout
            | Self::AttemptTimeout => Blame::Upstream,
            Self::DeniedByPolicy | Self::MtlsRequired => Blame::Policy,
        }
    }

    /// The HTTP status that tells the downstream.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest
            | Self::MalformedHost
            | Self::MalformedFraming
            | Self::MalformedPath
            | Self::AmbiguousPath
            | Self::UpgradeRefused
            | Self::DownstreamTls
            | Self::DownstreamProtocol => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeaderTimeout | Self::IdleTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::InvalidBackend | Self::InvalidFilter | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ConfigReply => StatusCode::OK,
            Self::UnknownDestination | Self::UpstreamReset | Self::UpstreamProtocol => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConfigTimeout
            | Self::NoEndpoint
            | Self::CircuitOpen
            | Self::PendingOverflow
            | Self::ConnectionOverflow
            | Self::ConnectTimeout
            | Self::ConnectRefused
            | Self::WrongIdentity
            | Self::TlsFailure
            | Self::OverLimit
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::RequestTimeout | Self::AttemptTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::DeniedByPolicy | Self::MtlsRequired | Self::PolicyMissing => StatusCode::FORBIDDEN,
            Self::Cancelled => CLIENT_CLOSED,
        }
    }

    /// The gRPC code that tells a gRPC downstream.
    #[must_use]
    pub fn grpc(self) -> GrpcCode {
        match self {
            Self::MalformedRequest
            | Self::MalformedHost
            | Self::MalformedFraming
            | Self::MalformedPath
            | Self::UpstreamProtocol
            | Self::DownstreamProtocol
            | Self::Internal => GrpcCode::Internal,
            Self::HeadersTooLarge | Self::OverLimit => GrpcCode::ResourceExhausted,
            Self::HeaderTimeout | Self::RequestTimeout | Self::AttemptTimeout | Self::IdleTimeout => {
                GrpcCode::DeadlineExceeded
            }
            Self::AmbiguousPath | Self::DeniedByPolicy | Self::MtlsRequired | Self::PolicyMissing => {
                GrpcCode::PermissionDenied
            }
            Self::UpgradeRefused | Self::NoRoute => GrpcCode::Unimplemented,
            Self::InvalidBackend
            | Self::InvalidFilter
            | Self::ConfigReply
            | Self::UnknownDestination
            | Self::ConfigTimeout
            | Self::NoEndpoint
            | Self::CircuitOpen
            | Self::PendingOverflow
            | Self::ConnectionOverflow
            | Self::ConnectTimeout
            | Self::ConnectRefused
            | Self::UpstreamReset
            | Self::WrongIdentity
            | Self::TlsFailure
            | Self::DownstreamTls
            | Self::Draining => GrpcCode::Unavailable,
            Self::Cancelled => GrpcCode::Cancelled,
        }
    }

    /// Envoy's response-flag letters for the same thing; `-` where it has none.
    #[must_use]
    pub fn flags(self) -> &'static str {
        match self {
            Self::MalformedRequest
            | Self::MalformedHost
            | Self::MalformedFraming
            | Self::MalformedPath
            | Self::HeadersTooLarge
            | Self::HeaderTimeout
            | Self::AmbiguousPath
            | Self::UpgradeRefused
            | Self::DownstreamTls
            | Self::DownstreamProtocol => "DPE",
            Self::NoRoute | Self::UnknownDestination => "NR",
            Self::InvalidBackend | Self::ConfigTimeout => "NC",
            Self::InvalidFilter | Self::ConfigReply | Self::Draining | Self::Internal => "-",
            Self::NoEndpoint | Self::CircuitOpen => "UH",
            Self::PendingOverflow | Self::ConnectionOverflow => "UO",
            Self::ConnectTimeout | Self::ConnectRefused | Self::WrongIdentity | Self::TlsFailure => "UF",
            Self::UpstreamReset => "UC",
            Self::UpstreamProtocol => "UPE",
            Self::RequestTimeout | Self::AttemptTimeout => "UT",
            Self::IdleTimeout => "SI",
            Self::DeniedByPolicy | Self::MtlsRequired | Self::PolicyMissing => "UAEX",
            Self::OverLimit => "OM",
            Self::Cancelled => "DC",
        }
    }
}

/// Nobody reads this status; logs show it as nginx does.
///
/// Source: nginx, 499 "client closed request".
const CLIENT_CLOSED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: HashSet<_> = ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        for (position, reason) in ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position, "{reason:?} is missing from ALL or out of order");
        }
        assert_eq!(Reason::Internal as usize + 1, ALL.len());
    }

    #[test]
    fn the_gateway_api_and_envoy_are_answered_as_they_expect() {
        let rows = [
            (Reason::NoRoute, 404, 12, "NR"),
            (Reason::InvalidBackend, 500, 14, "NC"),
            (Reason::NoEndpoint, 503, 14, "UH"),
            (Reason::RequestTimeout, 504, 4, "UT"),
            (Reason::AttemptTimeout, 504, 4, "UT"),
            (Reason::DeniedByPolicy, 403, 7, "UAEX"),
            (Reason::PendingOverflow, 503, 14, "UO"),
            (Reason::Cancelled, 499, 1, "DC"),
        ];
        for (reason, status, grpc, flags) in rows {
            assert_eq!(
                (reason.status().as_u16(), reason.grpc() as u8, reason.flags()),
                (status, grpc, flags),
                "{reason:?}"
            );
        }
    }
}
