//! HAProxy: Debian's package, two configurations.
//! Before this: `peer`. After it: two processes `haproxy -db`.
//!
//! Invariant: as Envoy's pair: TLS 1.3 with client certificates, no session resumption, upstream connections reused for
//! every client (`http-reuse always`), Prometheus statistics on, no log. It cannot match a URI name, so it matches the
//! DNS name (A) and the common name (B) of certificates from a root that signs nothing else.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Addresses, Job, Pair, Peer, free, installed, output};
use crate::pki::Side;
use crate::plan::Shape;
use crate::process::Process;

/// HAProxy, found or installed.
pub(crate) struct Haproxy {
    program: PathBuf,
}

impl Haproxy {
    /// Finds HAProxy, or installs Debian's package when root.
    ///
    /// # Errors
    /// It is not there and cannot be installed.
    pub(crate) fn find() -> Result<Self> {
        if let Some(program) = installed("haproxy") {
            return Ok(Self { program });
        }
        let missing =
            "HAProxy is not installed: `apt-get install haproxy` (the rig does it itself when root)";
        if !rustix::process::geteuid().is_root() {
            anyhow::bail!(missing);
        }
        eprintln!("installing HAProxy from Debian");
        let apt = Path::new("apt-get");
        output(apt, &["update"])
            .and_then(|_| output(apt, &["install", "-y", "--no-install-recommends", "haproxy"]))
            .context(missing)?;
        Ok(Self { program: installed("haproxy").context(missing)? })
    }
}

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn version(&self) -> Result<String> {
        let text = output(&self.program, &["-v"])?;
        Ok(text.split_whitespace().nth(2).unwrap_or("unknown").to_owned())
    }

    fn start(&self, job: &Job<'_>) -> Result<Pair> {
        let at = Addresses::new(job)?;
        let tap = at.tap(job)?;
        let start = |name: &str, text: String| -> Result<Process> {
            let file = job.workdir.join(format!("{name}.cfg"));
            fs::write(&file, text)?;
            let args = ["-db", "-f", &file.to_string_lossy()].map(str::to_owned);
            Process::start(name, &self.program, &args, job.workdir)
        };
        let a = outbound(job, at.call, at.next)?;
        let b = inbound(job, at.hop)?;
        let proxies = [start("haproxy-a", a)?, start("haproxy-b", b)?];
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

fn outbound(job: &Job<'_>, listen: SocketAddr, next: SocketAddr) -> Result<String> {
    let (own, root) = (job.pki.both(Side::A), job.pki.root());
    let tls = format!(
        "ssl crt {} ca-file {} verify required verifyhost {} sni str({}) no-ssl-reuse",
        own.display(),
        root.display(),
        Side::B.name(),
        Side::B.name()
    );
    let (bind, server) = match job.shape {
        Shape::Grpc => (" proto h2", format!("{tls} alpn h2")),
        _ => ("", tls),
    };
    Ok(format!(
        "{}frontend in\n  bind {listen}{bind}\n  default_backend out\n{}  server next {next} {server}\n",
        head(job)?,
        backend(job.shape)
    ))
}

fn inbound(job: &Job<'_>, listen: SocketAddr) -> Result<String> {
    let (own, root) = (job.pki.both(Side::B), job.pki.root());
    let tls = format!("ssl crt {} ca-file {} verify required", own.display(), root.display());
    let stranger = format!("unless {{ ssl_c_s_dn(cn) -m str {} }}", Side::A.name());
    let refuse = match job.shape {
        Shape::Tcp => format!("tcp-request session reject {stranger}"),
        _ => format!("http-request deny {stranger}"),
    };
    let (alpn, proto) = if job.shape == Shape::Grpc { (" alpn h2", " proto h2") } else { ("", "") };
    Ok(format!(
        "{}frontend in\n  bind {listen} {tls}{alpn}\n  {refuse}\n  default_backend out\n{}  server app {}{proto}\n",
        head(job)?,
        backend(job.shape),
        job.backend
    ))
}

fn backend(shape: Shape) -> &'static str {
    if shape == Shape::Tcp { "backend out\n" } else { "backend out\n  http-reuse always\n" }
}

fn head(job: &Job<'_>) -> Result<String> {
    let mode = if job.shape == Shape::Tcp { "tcp" } else { "http" };
    Ok(format!(
        "global
  nbthread {}
  maxconn 9000
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets
defaults
  mode {mode}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend stats
  mode http
  bind {}
  http-request use-service prometheus-exporter if {{ path /metrics }}
",
        job.workers,
        free(super::LOOPBACK)?
    ))
}
