//! `weft-load`: the application of the scenarios, one static program that is server, client and witness.
//!
//! ```text
//! serve   answers over HTTP and TCP, and tells who it is and what reached it
//! get     one request, told as JSON          load   many, counted by what became of them
//! tcp     one line over TCP                  sign   asks the control plane for a certificate, rightly or not
//! tap     runs on the node: what really crosses its interfaces
//! ```
//!
//! Invariant: it knows nothing of a mesh (but for `sign`): what it meets, any application would.
//! Invariant: what became of a request is told, never retried.

mod anybody;
mod client;
mod get;
mod report;
mod serve;
mod sign;
mod steady;
mod tap;
mod tcp;

use clap::Parser;

/// The application of the scenarios.
#[derive(Debug, Parser)]
#[command(name = "weft-load")]
enum Verb {
    /// Answer, and tell who answered.
    Serve(serve::ServeArgs),
    /// Ask once.
    Get(get::GetArgs),
    /// Ask steadily until told to end.
    Load(steady::LoadArgs),
    /// Say a line, and hear one.
    Tcp(tcp::TcpArgs),
    /// Ask for a certificate.
    Sign(sign::SignArgs),
    /// Read what crosses this node's interfaces until standard input ends.
    Tap(tap::TapArgs),
}

fn main() -> anyhow::Result<()> {
    let verb = Verb::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match verb {
            Verb::Serve(args) => serve::run(args).await,
            Verb::Get(args) => get::run(&args).await,
            Verb::Load(args) => steady::run(args).await,
            Verb::Tcp(args) => tcp::run(&args).await,
            Verb::Sign(args) => sign::run(&args).await,
            Verb::Tap(args) => tap::run(&args),
        }
    })
}

/// What was found out, for the test that reads it.
fn tell(found: &serde_json::Value) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{found}")?)
}

/// Returns after a while.
async fn after(time: std::time::Duration) {
    // Nothing comes; only the deadline does.
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
