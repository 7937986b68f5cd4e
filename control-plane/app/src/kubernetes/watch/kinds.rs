//! The kinds that are watched: where each is found on the API server, and whether the mesh can be
//! without it.
//!
//! Invariant: one line per kind of the model; what is not here is never asked for.

use weft_control_plane_core::model::Kind;

/// Group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Whether a kind has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Every API server has it.
    BuiltIn,
    /// Weft's installation brings it.
    Own,
    /// It may be installed later, or never.
    Optional,
}

/// A kind that is watched.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// Its group.
    pub group: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Versions that can be read, the best first; none: any, since only the metadata is read.
    pub versions: &'static [&'static str],
    /// Whether it has to be there.
    pub need: Need,
}

impl Watched {
    /// Where its objects of all namespaces are.
    pub fn path(&self, version: &str) -> String {
        match self.group {
            "" => format!("/api/{version}/{}", self.plural),
            group => format!("/apis/{group}/{version}/{}", self.plural),
        }
    }

    /// What its objects say as `apiVersion`.
    pub fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// Whether nothing but the metadata is read.
    pub fn metadata_only(&self) -> bool {
        self.versions.is_empty()
    }

    /// The version to read of those that are served.
    pub fn choose<'a>(&self, served: &'a [String]) -> Option<&'a str> {
        let known = |known: &&str| served.iter().find(|served| *served == known);
        match self.versions {
            [] => served.first(),
            versions => versions.iter().find_map(known),
        }
        .map(String::as_str)
    }
}

const fn built_in(kind: Kind, group: &'static str, plural: &'static str) -> Watched {
    Watched { kind, group, plural, versions: &["v1"], need: Need::BuiltIn }
}

const fn own(kind: Kind, plural: &'static str) -> Watched {
    Watched { kind, group: weft_k8s::GROUP, plural, versions: &[weft_k8s::VERSION], need: Need::Own }
}

const fn gateway(kind: Kind, plural: &'static str, versions: &'static [&'static str]) -> Watched {
    Watched { kind, group: GATEWAY_GROUP, plural, versions, need: Need::Optional }
}

/// All of them. Source: the kinds of the model.
pub const WATCHED: [Watched; 15] = [
    built_in(Kind::Namespace, "", "namespaces"),
    built_in(Kind::Node, "", "nodes"),
    built_in(Kind::Service, "", "services"),
    built_in(Kind::EndpointSlice, "discovery.k8s.io", "endpointslices"),
    built_in(Kind::Pod, "", "pods"),
    own(Kind::Mesh, "meshes"),
    own(Kind::AuthorizationPolicy, "authorizationpolicies"),
    own(Kind::TelemetryPolicy, "telemetrypolicies"),
    own(Kind::TlsPolicy, "tlspolicies"),
    own(Kind::TrafficPolicy, "trafficpolicies"),
    gateway(Kind::HttpRoute, "httproutes", &["v1", "v1beta1"]),
    gateway(Kind::GrpcRoute, "grpcroutes", &["v1"]),
    gateway(Kind::TlsRoute, "tlsroutes", &[]),
    gateway(Kind::TcpRoute, "tcproutes", &[]),
    gateway(Kind::UdpRoute, "udproutes", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind) -> Watched {
        WATCHED.into_iter().find(|watched| watched.kind == kind).unwrap()
    }

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(of(Kind::Pod).path("v1"), "/api/v1/pods");
        assert_eq!(of(Kind::Mesh).path("v1alpha1"), "/apis/weft.dev/v1alpha1/meshes");
        assert_eq!(of(Kind::EndpointSlice).api_version("v1"), "discovery.k8s.io/v1");
        assert_eq!(of(Kind::Node).api_version("v1"), "v1");
    }

    #[test]
    fn the_best_version_that_is_served_and_can_be_read_is_taken() {
        let served = |versions: &[&str]| versions.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(of(Kind::HttpRoute).choose(&served(&["v1beta1", "v1"])), Some("v1"));
        assert_eq!(of(Kind::HttpRoute).choose(&served(&["v1beta1"])), Some("v1beta1"));
        assert_eq!(of(Kind::HttpRoute).choose(&served(&["v1alpha2"])), None);
        assert_eq!(of(Kind::TlsRoute).choose(&served(&["v1alpha3", "v1alpha2"])), Some("v1alpha3"));
        assert_eq!(of(Kind::TlsRoute).choose(&[]), None);
    }
}
