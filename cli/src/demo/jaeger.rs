//! A real Jaeger beside the demo: found, started, asked for the trace of one request.
//!
//! Where it stands: started before the fleet, whose sidecars send it their traces by a TelemetryPolicy.
//!
//! Invariant: nothing is downloaded or built here; what is missing is said with what to do.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::place::{Block, random};
use super::shop::get;

/// A Jaeger that runs.
#[derive(Debug)]
pub(crate) struct Jaeger {
    child: Child,
    page: SocketAddr,
}

/// One request as Jaeger has it.
pub(crate) struct Told {
    /// Where a person looks at it.
    pub(crate) url: String,
    /// How many spans it has.
    pub(crate) spans: usize,
    /// Who received it, by the spans of servers.
    pub(crate) servers: BTreeSet<String>,
}

impl Jaeger {
    /// Starts Jaeger v2, `program` if it is not empty, and waits until it is ready.
    ///
    /// # Errors
    /// It is not there, with what to do, or it is not ready in time.
    ///
    /// # Cancel safety
    /// Dropped, it ends what was started.
    pub(crate) async fn start(program: &Path, block: Block, folder: &Path) -> anyhow::Result<Self> {
        let program = find(program)?;
        std::fs::create_dir_all(folder)?;
        let config = folder.join("jaeger.yaml");
        std::fs::write(&config, block.fill(CONFIG))?;
        let log = folder.join("jaeger.log");
        let file = std::fs::File::create(&log)?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut jaeger = Self { child, page: SocketAddr::from((block.ip(HOST), 16_686)) };
        let health = format!("{}:13133/status", block.ip(HOST));
        let started = Instant::now();
        while started.elapsed() < READY {
            if let Some(status) = jaeger.child.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                bail!("{} ended ({status}): {last}\nIs it Jaeger 2? Version 1 is not.", program.display());
            }
            if get(&health, &HeaderMap::new()).await.is_ok_and(|(status, _)| status.is_success()) {
                return Ok(jaeger);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{} is not ready within {} s; see {}", program.display(), READY.as_secs(), log.display())
    }

    /// Sends one request to the shop at `door` and reads its trace back, once it is whole or time is up.
    ///
    /// # Errors
    /// The shop cannot be asked.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn follow(&self, door: SocketAddr) -> anyhow::Result<Told> {
        let id = format!("{:032x}", random()?);
        let parent = HeaderValue::try_from(format!("00-{id}-{:016x}-01", 1))?;
        let headers = HeaderMap::from_iter([(HeaderName::from_static("traceparent"), parent)]);
        get(&format!("{door}/"), &headers).await?;
        let url = format!("http://{}/trace/{id}", self.page);
        let mut told = Told { url, spans: 0, servers: BTreeSet::new() };
        let started = Instant::now();
        while told.servers.len() < SERVERS && started.elapsed() < READY {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let answer = get(&format!("{}/api/traces/{id}", self.page), &HeaderMap::new()).await;
            let Ok((_, body)) = answer else { continue };
            let Ok(trace) = serde_json::from_slice::<Value>(&body) else { continue };
            (told.spans, told.servers) = read(&trace["data"][0]);
        }
        Ok(told)
    }

    /// Ends it and waits for it.
    pub(crate) async fn stop(&mut self) {
        let _ = self.child.kill().await;
    }
}

/// How many spans a trace has, and who told those of servers.
fn read(trace: &Value) -> (usize, BTreeSet<String>) {
    let spans = trace["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_server = |span: &&Value| {
        let tags = span["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        tags.iter().any(|tag| tag["key"] == "span.kind" && tag["value"] == "server")
    };
    let service = |span: &Value| {
        let process = span["processID"].as_str()?;
        trace["processes"][process]["serviceName"].as_str().map(str::to_owned)
    };
    (spans.len(), spans.iter().filter(is_server).filter_map(service).collect())
}

/// Jaeger's program: the one that was named, that of `PATH`, or the one that `cargo dev parts jaeger` built.
fn find(named: &Path) -> anyhow::Result<PathBuf> {
    if !named.as_os_str().is_empty() {
        anyhow::ensure!(named.is_file(), "there is no {}; {ADVICE}", named.display());
        return Ok(named.to_owned());
    }
    let set = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let folders =
        set("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let in_path = folders.into_iter().map(|folder| folder.join("jaeger"));
    let cache = set("WEFT_CACHE")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| PathBuf::from(folder).join("weft/parts")))
        .or_else(|| set("HOME").map(|folder| PathBuf::from(folder).join(".cache/weft/parts")));
    let mut built: Vec<PathBuf> = cache
        .and_then(|cache| std::fs::read_dir(cache).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("jaeger-"))
        .map(|entry| entry.path().join("jaeger"))
        .collect();
    built.sort();
    let found = in_path.chain(built.into_iter().rev()).find(|program| program.is_file());
    found.with_context(|| format!("there is no Jaeger in PATH, nor has one been built; {ADVICE}"))
}

const ADVICE: &str = "name the program of Jaeger 2 (--jaeger PATH), build one with `cargo dev parts jaeger` \
                      (needs Go), or send traces to any collector of yours (--otlp URL)";
/// Its host in the demo's block.
const HOST: u8 = 5;
/// The shop, the catalog, the cart and the payments.
const SERVERS: usize = 4;
/// Source: an idle machine needs 0.2 s; a loaded one much more.
const READY: Duration = Duration::from_secs(20);

const CONFIG: &str = "\
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces: {receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}
  telemetry: {metrics: {level: none}, logs: {level: info}}
extensions:
  healthcheckv2: {use_v2: true, http: {endpoint: '127.0.0.5:13133'}}
  jaeger_query: {storage: {traces: mem}, http: {endpoint: '127.0.0.5:16686'}, grpc: {endpoint: '127.0.0.5:16685'}}
  jaeger_storage: {backends: {mem: {memory: {max_traces: 50000}}}}
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.5:4317'}, http: {endpoint: '127.0.0.5:4318'}}}
exporters:
  jaeger_storage_exporter: {trace_storage: mem}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jaeger_that_is_not_there_is_answered_with_what_to_do() {
        let error = find(Path::new("/nowhere/jaeger")).unwrap_err().to_string();
        for way in ["/nowhere/jaeger", "--jaeger PATH", "cargo dev parts jaeger", "--otlp URL"] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn spans_are_counted_and_servers_named() {
        let span = |process: &str, kind: &str| serde_json::json!({"processID": process, "tags": [{"key": "span.kind", "value": kind}]});
        let trace = serde_json::json!({
            "spans": [span("p1", "client"), span("p2", "server"), span("p2", "server")],
            "processes": {"p1": {"serviceName": "shop"}, "p2": {"serviceName": "catalog"}},
        });
        assert_eq!(read(&trace), (3, BTreeSet::from(["catalog".to_owned()])));
        assert_eq!(read(&Value::Null), (0, BTreeSet::new()));
    }
}
