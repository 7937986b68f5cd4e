//! One request, and everything that came back.
//!
//! Invariant: an answer of any status and a failure are both findings: the exit status is 0, unless
//! another status was expected.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, Uri, Version};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::client::{Connection, within};

/// One request.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Where to: `http://server/path`.
    url: Uri,
    #[arg(long, default_value = "GET")]
    method: Method,
    /// `name: value`. Repeatable.
    #[arg(long, short = 'H')]
    header: Vec<String>,
    #[arg(long, default_value = "")]
    body: String,
    /// In HTTP/2 without TLS.
    #[arg(long)]
    http2: bool,
    /// How often to ask; each answer is one line.
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 20)]
    timeout: u64,
    /// Fail unless the status is this.
    #[arg(long)]
    expect: Option<u16>,
}

/// Asks, and tells.
pub(crate) async fn run(args: &GetArgs) -> anyhow::Result<()> {
    for _ in 0..args.times {
        let ask = async {
            let mut connection = Connection::open(&args.url, args.http2).await?;
            connection.ask(request(args).map_err(|error| format!("send: {error:#}"))?).await
        };
        let found = match within(Duration::from_secs(args.timeout), ask).await {
            Ok(answer) => described(&answer),
            Err(error) => json!({ "error": error }),
        };
        crate::tell(&found)?;
        if let Some(expected) = args.expect {
            let status = found.get("status").and_then(Value::as_u64);
            ensure!(status == Some(expected.into()), "the status is not {expected}");
        }
    }
    Ok(())
}

fn request(args: &GetArgs) -> anyhow::Result<Request<Full<Bytes>>> {
    let authority = args.url.authority().context("the URL has no host")?;
    let mut request = Request::builder().method(&args.method);
    if args.http2 {
        request = request.version(Version::HTTP_2).uri(args.url.clone());
    } else {
        let path = args.url.path_and_query().map_or("/", |path| path.as_str());
        request = request.uri(path);
        if !args.header.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            request = request.header("Host", authority.as_str());
        }
    }
    for line in &args.header {
        let (name, value) = line.split_once(':').context("a header is `name: value`")?;
        request = request.header(name.trim(), value.trim());
    }
    Ok(request.body(Full::from(args.body.clone()))?)
}

fn described(answer: &Response<Bytes>) -> Value {
    let headers: Vec<(&str, String)> = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let body = String::from_utf8_lossy(answer.body()).into_owned();
    json!({
        "status": answer.status().as_u16(),
        "version": format!("{:?}", answer.version()),
        "headers": headers,
        "json": serde_json::from_str::<Value>(&body).ok(),
        "body": body,
    })
}
