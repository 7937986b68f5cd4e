//! The gRPC server: its services behind one door, with the limits that stand around them.
//!
//! Before it: `listen` accepts and proves the peer. After it: `serve`, `certify` and `observe` answer.
//!
//! Invariant: a request over a limit is answered with "come back later", never dropped.

use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::LayerExt as _;
use tonic::transport::Server;
use tower::ServiceBuilder;
use weft_proto::v1::discovery_server::DiscoveryServer;
use weft_proto::v1::identity_server::IdentityServer;
use weft_proto::v1::observe_server::ObserveServer;

use crate::certify::{self, Certify};
use crate::listen::{self, Doorway};
use crate::observe::{self, Looking};
use crate::serve::{self, Serve};

/// Pings on an idle connection, and the time for their answer. Source: the sidecar pings as often.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Streams on one connection. Source: Weft's own; a sidecar has one, and signs now and then.
const STREAMS_PER_CONNECTION: u32 = 16;
/// Largest list of header fields. Source: hyper's own default.
const HEADER_LIST: u32 = 16 * 1024;

/// What is served.
pub struct Services {
    /// Configuration.
    pub discovery: Serve,
    /// Certificates.
    pub certify: Certify,
    /// Looking at the mesh.
    pub looking: Looking,
}

/// Serves until the doorway is told to stop.
///
/// # Cancel safety
/// Dropping it cuts every connection.
pub async fn serve(listener: TcpListener, doorway: Doorway, services: Services) {
    let Services { discovery, certify, looking } = services;
    let stop = doorway.stop.clone();
    let connections = ReceiverStream::new(listen::accept(listener, doorway));
    let identity = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(shed))
        .load_shed()
        .concurrency_limit(certify::WAITING)
        .named_layer(IdentityServer::new(certify).max_decoding_message_size(certify::REQUEST_LIMIT));
    let discovery = DiscoveryServer::new(discovery).max_decoding_message_size(serve::MESSAGE_LIMIT);
    let looking = ObserveServer::new(looking).max_decoding_message_size(observe::MESSAGE_LIMIT);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_LIST)
        .add_service(discovery)
        .add_service(identity)
        .add_service(looking)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}

/// A request over the limit is answered, not dropped: "come back later".
async fn shed(_over: tower::BoxError) -> http::Response<axum::body::Body> {
    tonic::Status::resource_exhausted("too many requests for certificates: try again soon").into_http()
}
