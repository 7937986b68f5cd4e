//! Real collectors of traces as processes of their own: Jaeger and Zipkin.
//!
//! What a test learns of a trace it reads back from them, as a person would.
//!
//! Invariant: each listens on an address of its own and is gone when it is dropped.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::mesh::{Http, until, until_within};

/// One span as it was read back.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its id.
    pub id: String,
    /// The span it is a child of; empty: none.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// Who told it.
    pub service: String,
    /// Its attributes, and those of who told it, as text.
    pub tags: BTreeMap<String, String>,
    /// What happened, by name.
    pub events: Vec<String>,
    /// When it began, microseconds.
    pub start: u64,
    /// How long it took, microseconds.
    pub duration: u64,
}

impl Span {
    /// An attribute; empty: it has none of that name.
    pub fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    /// Whether it is marked as an error.
    pub fn failed(&self) -> bool {
        matches!(self.tag("error"), "true") || self.tag("otel.status_code") == "ERROR"
    }
}

/// A trace as it was read back.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its spans, the earliest first.
    pub spans: Vec<Span>,
}

impl Trace {
    fn of(mut spans: Vec<Span>) -> Self {
        spans.sort_by(|a, b| (a.start, &a.id).cmp(&(b.start, &b.id)));
        Self { spans }
    }

    /// The span that is as asked.
    pub fn find(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> &Span {
        self.spans.iter().find(|span| is_it(span)).unwrap_or_else(|| panic!("no {what} in {self:#?}"))
    }

    /// The span that another is a child of.
    pub fn parent(&self, span: &Span) -> &Span {
        self.find("parent", |other| other.id == span.parent)
    }

    /// The children of a span, the earliest first.
    pub fn children(&self, span: &Span) -> Vec<&Span> {
        self.spans.iter().filter(|other| other.parent == span.id).collect()
    }
}

/// A process that ends with this value.
#[derive(Debug)]
struct Process {
    child: Child,
    folder: PathBuf,
    ip: Ipv4Addr,
    _claim: TcpListener,
}

impl Process {
    fn start(prepare: impl FnOnce(Ipv4Addr, &Path) -> Command) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("weft-collector-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let start = std::process::id().wrapping_mul(31).wrapping_add(number);
        // Whoever holds the claim's socket has the address.
        let (ip, claim) = (0..5_000_u32)
            .find_map(|step| {
                let [.., high, low] = start.wrapping_add(step * 7).to_be_bytes();
                let ip = Ipv4Addr::new(127, 250, high, low.clamp(1, 254));
                Some((ip, TcpListener::bind((ip, 1_999)).ok()?))
            })
            .expect("a free loopback address");
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = prepare(ip, &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder, ip, _claim: claim }
    }

    async fn ask(&self, port: u16, path: &str) -> Option<Value> {
        // While it starts nobody listens.
        tokio::net::TcpStream::connect((self.ip, port)).await.ok()?;
        let answer = Http::once(SocketAddr::from((self.ip, port)), path).await.ok()?;
        serde_json::from_str(&answer.body).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the collector said last:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// A Jaeger that runs.
#[derive(Debug)]
pub struct Jaeger {
    process: Process,
    scheme: &'static str,
}

impl Jaeger {
    /// Starts one: `program` is Jaeger v2's.
    ///
    /// # Cancel safety
    /// Dropped, it ends what was started.
    pub async fn start(program: &Path) -> Self {
        Self::start_with(program, |_| None).await
    }

    /// Starts one whose receivers speak TLS: `certify` makes the files for an address.
    ///
    /// # Cancel safety
    /// Dropped, it ends what was started.
    pub async fn start_with(program: &Path, certify: impl FnOnce(Ipv4Addr) -> Option<Certified>) -> Self {
        let mut scheme = "http";
        let process = Process::start(|ip, folder| {
            let tls = certify(ip).map(|certified| {
                scheme = "https";
                let Certified { certificate, key } = certified;
                format!(", tls: {{cert_file: {}, key_file: {}}}", certificate.display(), key.display())
            });
            let text = CONFIG.replace("TLS", &tls.unwrap_or_default()).replace("IP", &ip.to_string());
            std::fs::write(folder.join("config.yaml"), text).unwrap();
            let mut command = Command::new(program);
            command.arg("--config").arg(folder.join("config.yaml"));
            command
        });
        until("Jaeger is ready", async || process.ask(13_133, "/status").await).await;
        Self { process, scheme }
    }

    /// Where it takes OTLP over gRPC.
    pub fn grpc(&self) -> String {
        format!("{}://{}:4317", self.scheme, self.process.ip)
    }

    /// Where it takes OTLP over HTTP.
    pub fn http(&self) -> String {
        format!("{}://{}:4318", self.scheme, self.process.ip)
    }

    /// What its query API answers.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ask(&self, path: &str) -> Value {
        let mut answer = self.process.ask(16_686, path).await.expect("an answer of Jaeger's");
        answer["data"].take()
    }

    /// A trace by its id, once it is as asked.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn trace(&self, id: &str, whole: impl Fn(&Trace) -> bool) -> Trace {
        let path = format!("/api/traces/{id}");
        let what = format!("trace {id}");
        until(&what, async || self.traces_at(&path).await.into_iter().find(&whole)).await
    }

    /// The first trace in which a service tells something, that is as asked.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn trace_of(&self, service: &str, is_it: impl Fn(&Trace) -> bool) -> Trace {
        let what = format!("a trace of {service}");
        until(&what, async || self.traces_of(service).await.into_iter().find(&is_it)).await
    }

    /// The traces in which a service tells something.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn traces_of(&self, service: &str) -> Vec<Trace> {
        self.traces_at(&format!("/api/traces?service={service}&limit=1000&lookback=1h")).await
    }

    async fn traces_at(&self, path: &str) -> Vec<Trace> {
        let found = self.ask(path).await;
        found.as_array().into_iter().flatten().map(jaegers).collect()
    }

    /// Who calls whom: parent, child.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn dependencies(&self) -> Vec<(String, String)> {
        let soon = std::time::SystemTime::now() + Duration::from_secs(5);
        let soon = soon.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let found = self.ask(&format!("/api/dependencies?endTs={soon}&lookback=3600000")).await;
        let edge = |edge: &Value| (text(&edge["parent"]), text(&edge["child"]));
        found.as_array().into_iter().flatten().map(edge).collect()
    }
}

const CONFIG: &str = "
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces: {receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}
  telemetry: {metrics: {level: none}, logs: {level: info}}
extensions:
  healthcheckv2: {use_v2: true, http: {endpoint: 'IP:13133'}}
  jaeger_query: {storage: {traces: mem}, http: {endpoint: 'IP:16686'}, grpc: {endpoint: 'IP:16685'}}
  jaeger_storage: {backends: {mem: {memory: {max_traces: 50000}}}}
receivers:
  otlp: {protocols: {grpc: {endpoint: 'IP:4317'TLS}, http: {endpoint: 'IP:4318'TLS}}}
exporters:
  jaeger_storage_exporter: {trace_storage: mem}
";

fn jaegers(trace: &Value) -> Trace {
    let tags = |list: &Value| -> Vec<(String, String)> {
        list.as_array().into_iter().flatten().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect()
    };
    let span = |span: &Value| {
        let process = &trace["processes"][text(&span["processID"])];
        let parent = &span["references"][0]["spanID"];
        let field = |log: &Value| {
            let fields = tags(&log["fields"]);
            fields.into_iter().find(|(key, _)| key == "event").map(|(_, value)| value).unwrap_or_default()
        };
        Span {
            id: text(&span["spanID"]),
            parent: text(parent),
            name: text(&span["operationName"]),
            service: text(&process["serviceName"]),
            tags: tags(&process["tags"]).into_iter().chain(tags(&span["tags"])).collect(),
            events: span["logs"].as_array().into_iter().flatten().map(field).collect(),
            start: span["startTime"].as_u64().unwrap_or_default(),
            duration: span["duration"].as_u64().unwrap_or_default(),
        }
    };
    Trace::of(trace["spans"].as_array().into_iter().flatten().map(span).collect())
}

/// A value as text: nothing is empty, a number its digits.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A Zipkin that runs.
#[derive(Debug)]
pub struct Zipkin(Process);

impl Zipkin {
    /// Starts one: `jar` is its server's, `java` what runs it.
    ///
    /// # Cancel safety
    /// Dropped, it ends what was started.
    pub async fn start(java: &Path, jar: &Path) -> Self {
        let process = Process::start(|ip, _| {
            let mut command = Command::new(java);
            command.args(["-Xmx256m", "-jar"]).arg(jar);
            command.args([format!("--server.address={ip}"), "--server.port=9411".to_owned()]);
            command.env("QUERY_PORT", "9411");
            command
        });
        // A virtual machine on a busy machine takes its time.
        let up = async || process.ask(9_411, "/health").await.filter(|health| health["status"] == "UP");
        until_within(Duration::from_secs(180), "Zipkin is ready", up).await;
        Self(process)
    }

    /// Where it takes spans.
    pub fn endpoint(&self) -> String {
        format!("http://{}:9411", self.0.ip)
    }

    /// What its API answers.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ask(&self, path: &str) -> Value {
        self.0.ask(9_411, path).await.unwrap_or_default()
    }

    /// A trace by its id, once it is as asked.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn trace(&self, id: &str, whole: impl Fn(&Trace) -> bool) -> Trace {
        let path = format!("/api/v2/trace/{id}");
        until(&format!("trace {id}"), async || Some(zipkins(&self.ask(&path).await)).filter(&whole)).await
    }
}

fn zipkins(spans: &Value) -> Trace {
    let span = |span: &Value| Span {
        id: text(&span["id"]),
        parent: text(&span["parentId"]),
        name: text(&span["name"]),
        service: text(&span["localEndpoint"]["serviceName"]),
        tags: span["tags"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(value)))
            .chain([("span.kind".to_owned(), text(&span["kind"]).to_lowercase())])
            .collect(),
        events: span["annotations"].as_array().into_iter().flatten().map(|one| text(&one["value"])).collect(),
        start: span["timestamp"].as_u64().unwrap_or_default(),
        duration: span["duration"].as_u64().unwrap_or_default(),
    };
    Trace::of(spans.as_array().into_iter().flatten().map(span).collect())
}
