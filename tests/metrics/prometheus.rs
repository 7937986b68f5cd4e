//! A real Prometheus beside a mesh in which everything happens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weft_tests::mesh::{Http, until, until_within};

use crate::boards::{self, Query};
use crate::busy::Busy;
use crate::{file, text};

/// A running Prometheus; ends with this value.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether Prometheus and its tool are here; says so loudly when not.
fn here(test: &str) -> bool {
    let has = |program: &str| {
        let run = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let here = has("prometheus") && has("promtool");
    if !here {
        weft_tests::netns::skip(test, "there is no prometheus; on Debian: apt-get install prometheus");
    }
    here
}

impl Prometheus {
    /// Starts one that scrapes the mesh every second, by the files of the repository.
    async fn start(busy: &Busy, port: u16, features: &str) -> Self {
        let folder = busy.mesh.folder().join(format!("prometheus-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["rules.yaml", "alerts.yaml"] {
            std::fs::copy(file(&format!("observability/prometheus/{name}")), folder.join(name)).unwrap();
        }
        let config = text("observability/prometheus/scrape.yaml").replace("15s", "1s");
        std::fs::write(folder.join("scrape.yaml"), config).unwrap();
        let target = |address: SocketAddr, namespace: &str, pod: &str| {
            format!("- {{targets: ['{address}'], labels: {{namespace: {namespace}, pod: {pod}}}}}\n")
        };
        let sidecars: String =
            busy.sidecars().map(|pod| target(busy.mesh.sidecar(pod).admin.unwrap(), "test", pod)).collect();
        std::fs::write(folder.join("sidecars.yaml"), sidecars).unwrap();
        let control_plane = target(busy.mesh.control_plane_admin(), "weft-system", "weft-control-plane-0");
        std::fs::write(folder.join("control-planes.yaml"), control_plane).unwrap();
        let address = SocketAddr::new(busy.free(), port);
        let log = folder.join("log");
        let file = std::fs::File::create(&log).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("scrape.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--enable-feature={features}"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let prometheus = Self { child, address, log };
        until("Prometheus is ready", async || {
            tokio::net::TcpStream::connect(address).await.ok()?;
            let answer = Http::once(address, "/-/ready").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// What an API of it answers.
    async fn api(&self, path: &str) -> Value {
        let answer = Http::once(self.address, path).await.unwrap();
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(value["status"], "success", "{path}: {value}\n{}", self.tail());
        value["data"].clone()
    }

    /// What a query gives now.
    async fn ask(&self, expression: &str) -> Vec<Value> {
        let data = self.api(&format!("/api/v1/query?query={}", encoded(expression))).await;
        data["result"].as_array().unwrap().clone()
    }

    /// Asks until every query has been answered with a number at some time; the rest.
    async fn unanswered(&self, busy: &Busy, queries: Vec<Query>) -> Vec<Query> {
        let mut left = queries;
        for _ in 0..ROUNDS {
            busy.round().await;
            let mut still = Vec::new();
            for query in left {
                let results = self.ask(&query.expression).await;
                if !results.iter().any(is_number) {
                    still.push(query);
                }
            }
            left = still;
            if left.is_empty() {
                break;
            }
            self.scraped().await;
        }
        left
    }

    /// Waits for another scrape.
    async fn scraped(&self) {
        let count = async || self.ask("sum(count_over_time(weft_control_connected[1h]))").await;
        let before = count().await;
        until("another scrape", async || (count().await != before).then_some(())).await;
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Rounds of traffic after which what has not answered never will. Source: a rate over a minute needs two
/// scrapes, a recorded one a few more, and a ratio of those a few more again.
const ROUNDS: usize = 40;

fn is_number(result: &Value) -> bool {
    let value = result["value"][1].as_str().or(result["histogram"][1]["count"].as_str());
    value.and_then(|value| value.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let each = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(each).collect()
}

#[tokio::test]
async fn prometheus_scrapes_the_mesh_and_answers_every_query_of_every_board_and_of_the_adapter() {
    if !here("prometheus_scrapes_the_mesh_and_answers_every_query_of_every_board_and_of_the_adapter") {
        return;
    }
    let busy = Busy::start(&[]).await;
    busy.everything().await;
    let prometheus = Prometheus::start(&busy, 9090, "exemplar-storage").await;
    until("every target is up", async || {
        let up = prometheus.ask("sum(up)").await;
        (up.first()?["value"][1] == (busy.sidecars().count() + 1).to_string().as_str()).then_some(())
    })
    .await;
    let mut queries: Vec<Query> =
        boards::boards().iter().flat_map(|(name, board)| boards::queries(name, board)).collect();
    queries.extend(boards::adapter());
    queries.extend(boards::recorded());
    assert!(queries.len() > 100, "{}", queries.len());
    let left = prometheus.unanswered(&busy, queries).await;
    // No pod was ever shown to this webhook: there is none.
    let left: Vec<&Query> = left.iter().filter(|query| query.place != "control-plane: Webhook").collect();
    assert!(left.is_empty(), "without data: {left:#?}");

    let groups = prometheus.api("/api/v1/rules").await;
    let rules: Vec<&Value> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert!(rules.len() > 30);
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let state = |alert: &str| rules.iter().find(|rule| rule["name"] == alert).unwrap()["state"].clone();
    let open = state("WeftCircuitOpen");
    assert!(open == "pending" || open == "firing", "{open}");
    for alert in ["WeftControlPlaneUnreachable", "WeftCertificateExpires", "WeftManifestsBroken"] {
        assert_eq!(state(alert), "inactive", "{alert}");
    }

    let of = "/api/v1/query_exemplars?query=weft_request_duration_seconds_bucket&start=0&end=9999999999";
    let exemplars = until("a trace of a slow bucket", async || {
        busy.round().await;
        let found = prometheus.api(of).await.as_array().unwrap().clone();
        (!found.is_empty()).then_some(found)
    })
    .await;
    let trace = exemplars[0]["exemplars"][0]["labels"]["trace_id"].as_str().unwrap();
    assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{exemplars:?}");
}

#[tokio::test]
async fn a_prometheus_that_asks_gets_native_histograms() {
    if !here("a_prometheus_that_asks_gets_native_histograms") {
        return;
    }
    let busy = Busy::start(&[]).await;
    busy.everything().await;
    let prometheus = Prometheus::start(&busy, 9091, "native-histograms,exemplar-storage").await;
    let quantile = |metric: &str, sum: &str| {
        format!("histogram_quantile(0.9, sum by (direction) (rate({metric}{{{sum}}}[1m])))")
    };
    let queries = [
        ("durations", quantile("weft_request_duration_seconds", "")),
        ("first bytes", quantile("weft_response_first_byte_seconds", "")),
        ("sizes", quantile("weft_request_size_bytes", "destination_service=\"test/web:8080\"")),
        (
            "the control plane's",
            "histogram_count(weft_control_plane_compile_duration_seconds) > 0".to_owned(),
        ),
        ("counters", "sum(rate(weft_requests_total[1m]))".to_owned()),
        ("gauges", "weft_circuit_open".to_owned()),
        ("facts", "weft_build_info".to_owned()),
    ];
    let queries = queries.map(|(place, expression)| Query { place: place.to_owned(), expression });
    let left = prometheus.unanswered(&busy, queries.into()).await;
    assert!(left.is_empty(), "without data: {left:#?}\n{}", prometheus.tail());
    // Both histograms count the same requests: no classic one is left, and the native one is whole.
    assert_eq!(prometheus.ask("weft_request_duration_seconds_bucket").await, [Value::Null; 0]);
    let labels = "{destination_service=\"test/web:8080\",direction=\"outbound\"}";
    until_within(Duration::from_secs(60), "both counts agree", async || {
        let counted = prometheus
            .ask(&format!(
                "sum(histogram_count(weft_request_duration_seconds{labels})) == sum(weft_requests_total{labels})"
            ))
            .await;
        (!counted.is_empty()).then_some(())
    })
    .await;
}

/// `promtool`, in the folder of the rules.
fn promtool(words: &[&str], folder: &Path) -> String {
    let output = Command::new("promtool").args(words).current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {words:?}: {said}");
    said
}

#[test]
fn promtool_takes_configurations_rules_and_alerts_and_each_alert_fires_when_it_should() {
    if !here("promtool_takes_configurations_rules_and_alerts_and_each_alert_fires_when_it_should") {
        return;
    }
    let folder = file("observability/prometheus");
    promtool(&["check", "config", "scrape.yaml"], &folder);
    promtool(&["check", "rules", "rules.yaml", "alerts.yaml"], &folder);
    promtool(&["test", "rules", "alerts_test.yaml"], &folder);

    // Debian's Prometheus is built without the discovery of Kubernetes: the rest of that file is checked.
    let mut config: Value =
        serde_saphyr::from_str(&text("observability/prometheus/scrape-kubernetes.yaml")).unwrap();
    for job in config["scrape_configs"].as_array_mut().unwrap() {
        let job = job.as_object_mut().unwrap();
        assert_eq!(job.remove("kubernetes_sd_configs").unwrap()[0]["role"], "pod");
        job.insert("static_configs".to_owned(), serde_json::json!([]));
    }
    let aside = std::env::temp_dir().join(format!("weft-scrape-{}.yaml", std::process::id()));
    config["rule_files"] = serde_json::json!([]);
    std::fs::write(&aside, config.to_string()).unwrap();
    promtool(&["check", "config", &aside.to_string_lossy()], &folder);
    std::fs::remove_file(aside).unwrap();

    let alerts: Value = serde_saphyr::from_str(&text("observability/prometheus/alerts.yaml")).unwrap();
    let tests = text("observability/prometheus/alerts_test.yaml");
    for group in alerts["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            let named = tests.matches(&format!("alertname: {name}")).count();
            assert!(named >= 2, "{name} is tested firing and quiet");
            for annotation in ["summary", "description", "action"] {
                assert!(rule["annotations"][annotation].is_string(), "{name} has no {annotation}");
            }
        }
    }
}
