//! A collector of traces: batches in, accepted or not out.
//!
//! Made by `export` of what the configuration says, and made anew when that changes.
//!
//! Invariant: the collector's certificate is verified up to the roots that were named for it, and for its own
//! name. Its name is resolved for each connection.
//! Invariant: header fields may hold a key; they are never shown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use weft_proxy_core::spec::{TraceExport, TraceProtocol};

use super::origin::Origin;
use super::post::{Place, Post, fields};
use super::zipkin;
use crate::metrics::Metrics;

/// A collector.
#[derive(Debug)]
pub struct Collector {
    how: How,
    timeout: Duration,
}

#[derive(Debug)]
enum How {
    Grpc(Box<SpanExporter>),
    Http(Box<Post>, ResourceAttributesWithSchema),
    Zipkin(Box<Post>, Origin),
}

/// A collector cannot be used as it was named.
#[derive(Debug, thiserror::Error)]
#[error("the trace collector {endpoint:?} cannot be used: {why}; give a URL such as http://jaeger:4317")]
pub struct BadCollector {
    endpoint: String,
    why: String,
}

impl Collector {
    /// A way to a collector; nothing is connected yet.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(wanted: &TraceExport, metrics: &Arc<Metrics>) -> Result<Self, BadCollector> {
        let timeout = wanted.timeout.unwrap_or(DEADLINE);
        match Self::reach(wanted, timeout, metrics) {
            Ok(how) => Ok(Self { how, timeout }),
            Err(why) => Err(BadCollector { endpoint: wanted.endpoint.to_string(), why }),
        }
    }

    fn reach(wanted: &TraceExport, timeout: Duration, metrics: &Arc<Metrics>) -> Result<How, String> {
        let uri: Uri = wanted.endpoint.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err("it begins neither with http:// nor with https://".to_owned()),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let grpc = wanted.protocol == TraceProtocol::OtlpGrpc;
        let tls = if secure { Some(tls(&wanted.ca_bundle, grpc)?) } else { None };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let place = Place { host, port, tls, metrics: Arc::clone(metrics) };
        if grpc {
            return exporter(wanted, authority.as_str(), place, timeout);
        }
        let own = if wanted.protocol == TraceProtocol::Zipkin { "/api/v2/spans" } else { "/v1/traces" };
        let path = if uri.path().trim_matches('/').is_empty() { own } else { uri.path() }.to_owned();
        let host = HeaderValue::try_from(authority.as_str()).map_err(|error| error.to_string())?;
        let post = Box::new(Post::new(place, &host, path, fields(&wanted.headers)?));
        Ok(match wanted.protocol {
            TraceProtocol::Zipkin => How::Zipkin(post, Origin::default()),
            TraceProtocol::OtlpHttp | TraceProtocol::OtlpGrpc => {
                How::Http(post, (&Origin::default().resource()).into())
            }
        })
    }

    /// Who tells the spans from now on.
    pub fn told_by(&mut self, origin: &Origin) {
        match &mut self.how {
            How::Grpc(exporter) => exporter.set_resource(&origin.resource()),
            How::Http(_, resource) => *resource = (&origin.resource()).into(),
            How::Zipkin(_, known) => *known = origin.clone(),
        }
    }

    /// Sends one batch, within the collector's deadline; gives how many of it the collector did not want.
    ///
    /// # Errors
    /// Why the batch was not taken.
    ///
    /// # Cancel safety
    /// Dropped, the batch is lost.
    pub async fn export(&mut self, batch: Vec<SpanData>) -> Result<u64, String> {
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.send(batch)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) -> Result<u64, String> {
        match &mut self.how {
            How::Grpc(exporter) => {
                exporter.export(batch).await.map(|()| 0).map_err(|error| error.to_string())
            }
            How::Http(post, resource) => {
                let resource_spans = group_spans_by_resource_and_scope(batch, resource);
                let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
                let answer = post.send("application/x-protobuf", Bytes::from(body)).await?;
                // What is no such message is no reason to tell the spans again.
                let partial =
                    ExportTraceServiceResponse::decode(answer).ok().and_then(|it| it.partial_success);
                Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
            }
            How::Zipkin(post, origin) => {
                let body = zipkin::body(&batch, origin).map_err(|error| error.to_string())?;
                post.send("application/json", Bytes::from(body)).await.map(|_| 0)
            }
        }
    }
}

fn exporter(wanted: &TraceExport, authority: &str, place: Place, timeout: Duration) -> Result<How, String> {
    let scheme = if place.tls.is_some() { "https" } else { "http" };
    let origin: Uri = format!("{scheme}://{authority}").parse().map_err(|_| "its host is none".to_owned())?;
    // tonic would want TLS of its own for https; here the connector brings it.
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .origin(origin)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(false);
    let place = Arc::new(place);
    let connector = tower::service_fn(move |_: Uri| {
        let place = Arc::clone(&place);
        async move { place.open().await }
    });
    let channel = endpoint.connect_with_connector_lazy(connector);
    SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(timeout)
        .with_metadata(MetadataMap::from_headers(fields(&wanted.headers)?))
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map(|exporter| How::Grpc(Box::new(exporter)))
        .map_err(|error| error.to_string())
}

fn tls(pem: &str, grpc: bool) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("its roots cannot be read: {error}"))?;
        roots.add(certificate).map_err(|error| format!("its roots cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("https needs the roots of its certificate (caBundle of a TelemetryPolicy)".to_owned());
    }
    let mut config = ClientConfig::builder_with_provider(weft_proxy_net::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if grpc { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(Arc::new(config))
}

/// Source: half of OpenTelemetry's default, because the queue holds only seconds of traces.
const DEADLINE: Duration = Duration::from_secs(5);
/// A silent connection is asked for life, and given up, after this. Source: gRPC's keepalive timeout, 20 s.
const KEEPALIVE: Duration = Duration::from_secs(20);
