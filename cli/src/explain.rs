//! `weft explain`: why a request goes where it goes, room by room, with the manifest and the field behind each
//! step.
//!
//! ```text
//! words ─▶ ask: source's outbound side ─▶ destination's inbound side ─▶ page
//!            └ a folder of manifests (folder), or the sidecars themselves
//! ```
//!
//! Invariant: nothing is decided here: the sidecar's own code walks, in the sidecar or on a snapshot that its own
//! adoption made of the manifests.

mod folder;
mod live;
mod page;
mod recalled;
mod report;
mod words;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use weft_proto::v1;

use crate::observe::MeshArgs;
use crate::{Form, cluster, install};

/// Which request, and how to answer.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// Source, destination, method and path. Ends are kind/name[.namespace][:port] or <ip>[:port].
    /// Between the two nothing, the word `to`, or a quoted '->'; unquoted, a shell would write to a file.
    #[arg(value_name = "FROM TO [METHOD] [PATH]", required_unless_present = "request")]
    words: Vec<String>,
    /// What was decided for a request that was: its id, from the answer's weft-request-id or the access log.
    #[arg(long, value_name = "ID", conflicts_with = "words")]
    request: Option<String>,
    /// Answer from a folder of manifests, without a cluster.
    #[arg(long, value_name = "FOLDER", conflicts_with = "request")]
    manifests: Option<PathBuf>,
    /// A header field, `name: value`.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = words::field)]
    headers: Vec<(String, String)>,
    /// The host that the request names. Default: the destination's name.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// It is gRPC: HTTP/2, POST, and its content-type.
    #[arg(long, conflicts_with_all = ["http2", "tls", "tcp"])]
    grpc: bool,
    /// It is HTTP/2.
    #[arg(long, conflicts_with_all = ["tls", "tcp"])]
    http2: bool,
    /// It is TLS of the application's own.
    #[arg(long, conflicts_with = "tcp")]
    tls: bool,
    /// It is no HTTP: bytes.
    #[arg(long)]
    tcp: bool,
    /// As if this endpoint failed until it is ejected, pod[.namespace] or <ip>:<port>; with --manifests.
    #[arg(long, value_name = "ENDPOINT", requires = "manifests")]
    failing: Vec<String>,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Form::Text)]
    output: Form,
}

const EXAMPLES: &str = "\
Examples:
  weft explain deploy/shop svc/catalog GET /items
  weft explain deploy/shop svc/catalog GET /items -H 'x-canary: 1'
  weft explain pod/shop-0.shop '->' svc/catalog.store:8080 POST /orders --manifests mesh/
  weft explain deploy/shop svc/inventory /shop.v1.Inventory/Get --grpc
  weft explain 10.0.0.9 pod/db-0 --tcp
  weft explain --request 4bf92f3577b34da6a3ce929d0e0e4736";

/// Explains.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    if let Some(id) = &args.request {
        return recall(args, id);
    }
    let report = match &args.manifests {
        Some(folder) => folder::explain(args, folder)?,
        None => cluster::block_on(live::explain(args))?,
    };
    let text = match args.output {
        Form::Json => serde_json::to_string_pretty(&report).context("writing JSON")? + "\n",
        Form::Text => page::render(&report, std::io::stdout().is_terminal()),
    };
    install::print(&text)
}

/// Tells what was decided.
fn recall(args: &ExplainArgs, id: &str) -> anyhow::Result<()> {
    let found = cluster::block_on(live::recall(args, id))?;
    let text = match args.output {
        Form::Text => recalled::render(id, &found),
        Form::Json => {
            let list: Vec<serde_json::Value> = found
                .iter()
                .map(|(workload, decision)| serde_json::json!({"workload": workload, "decision": decision}))
                .collect();
            serde_json::to_string_pretty(&list).context("writing JSON")? + "\n"
        }
    };
    install::print(&text)
}

/// The request as the source's application sends it; the destination is still to be named.
fn question(args: &ExplainArgs, words: &words::Words, host: &str) -> v1::ExplainRequest {
    let spoken = match (args.grpc || args.http2, args.tls, args.tcp) {
        (true, _, _) => v1::ExplainSpoken::Http2,
        (_, true, _) => v1::ExplainSpoken::Tls,
        (_, _, true) => v1::ExplainSpoken::Bytes,
        _ => v1::ExplainSpoken::Http1,
    };
    let mut headers = args.headers.clone();
    let named = |name: &str| args.headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    if args.grpc && !named("content-type") {
        headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
    }
    let usual = if args.grpc { "POST" } else { "GET" };
    v1::ExplainRequest {
        side: v1::ExplainSide::Outbound.into(),
        destination: None,
        spoken: spoken.into(),
        method: words.method.clone().unwrap_or_else(|| usual.to_owned()),
        target: words.path.clone().unwrap_or_else(|| "/".to_owned()),
        authority: args.host.clone().unwrap_or_else(|| host.to_owned()),
        headers: headers.into_iter().map(|(name, value)| v1::Field { name, value }).collect(),
        peer_identity: String::new(),
        peer_address: String::new(),
    }
}

#[cfg(test)]
mod tests;
