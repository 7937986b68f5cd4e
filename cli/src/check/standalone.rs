//! A stand-alone control plane, by what its administrator's port says.
//!
//! Invariant: the answer is bounded, in bytes and in time.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{Finding, Findings, mesh};
use crate::cluster::{Answer, Page, Replica};

/// Deadline of a whole request. Source: as for a replica in a cluster.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of an answer. Source: as for a replica in a cluster.
const LARGEST: usize = 64 << 20;

/// What `/status` says beside what replicas in a cluster do.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Folder {
    ready: bool,
    problems: Vec<Problem>,
}

/// What is wrong with the folder that it reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    file: String,
    line: u64,
    reason: String,
}

/// Looks at the control plane and at its sidecars.
pub(super) async fn look(admin: &str) -> anyhow::Result<Vec<Finding>> {
    let place = admin.trim_end_matches('/').trim_start_matches("http://");
    if place.contains("://") || place.contains('/') {
        bail!("{admin:?} is not http://HOST:PORT of the control plane's --admin");
    }
    let body = match tokio::time::timeout(DEADLINE, get(place, "/status")).await {
        Ok(answer) => answer,
        Err(_) => Err(anyhow!("no answer in {} s", DEADLINE.as_secs())),
    };
    let mut findings = Findings::of("Control plane");
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let remedy = "is the control plane running, and is this its --admin address?";
            findings.fail("status", format!("{place}: {error:#}"), remedy);
            return Ok(findings.list);
        }
    };
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    told(place, &body, now, &mut findings)?;
    Ok(findings.list)
}

/// What an answer means.
pub(super) fn told(place: &str, body: &[u8], now: i64, findings: &mut Findings) -> anyhow::Result<()> {
    let folder: Folder = serde_json::from_slice(body).context("its status is not understood")?;
    let page: Page = serde_json::from_slice(body).context("its status is not understood")?;
    if folder.ready {
        findings.ok("status", format!("{place} serves generation {}", page.generation));
    } else {
        let remedy = "it serves once the manifests are good: see the problems below, or its log";
        findings.fail("status", format!("{place} has no good state of the manifests yet"), remedy);
    }
    for problem in &folder.problems {
        let detail = format!("{}:{}: {}", problem.file, problem.line, problem.reason);
        findings.fail("manifests", detail, "correct it; until then the last good state is served");
    }
    let replica = Replica {
        pod: place.to_owned(),
        version: String::new(),
        ready: folder.ready,
        leader: true,
        page: Answer::Status(page),
    };
    mesh::of_sidecars(&[replica], now, findings);
    Ok(())
}

async fn get(place: &str, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(place).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path).header(http::header::HOST, place).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        if status != http::StatusCode::OK {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The server may close as soon as it has answered.
        _ = &mut connection => exchange.await,
    }
}
