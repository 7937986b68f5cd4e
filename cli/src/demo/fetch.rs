//! One request from inside a pod, for images that have no shell and no curl.
//!
//! Invariant: the exit code says whether the answer had the status that was expected.

use anyhow::Context as _;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::shop::get;

/// What is asked, and what is expected.
#[derive(Debug, Clone, Args)]
pub(crate) struct FetchArgs {
    /// What is asked for: http://HOST[:PORT]/PATH.
    url: String,
    /// A header of the request, NAME:VALUE. Repeatable.
    #[arg(long, value_parser = header, value_name = "NAME:VALUE")]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The status that is right.
    #[arg(long, default_value_t = 200)]
    expect: u16,
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is NAME:VALUE")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// Asks, and gives the answer's body.
///
/// # Errors
/// The address is none, nobody answers, or the status is another than expected.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn fetch(args: &FetchArgs) -> anyhow::Result<String> {
    let rest = args.url.strip_prefix("http://").context("the URL begins with http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if host.rsplit_once(':').is_some() { "" } else { ":80" };
    let headers: HeaderMap = args.header.iter().cloned().collect();
    let (status, body) = get(&format!("{host}{port}/{path}"), &headers)
        .await
        .with_context(|| format!("no answer from {host}"))?;
    let body = String::from_utf8_lossy(&body).into_owned();
    anyhow::ensure!(status.as_u16() == args.expect, "{status}, expected {}: {body}", args.expect);
    Ok(body)
}
