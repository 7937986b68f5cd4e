//! The Gateway API's conformance suite, unchanged, run on a cluster with the profiles of a mesh.
//!
//! Invariant: every mesh test of the suite is asked for; which ran and how is read from what the suite
//! prints, and what did not run is not passed.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::part::CONFORMANCE;
use crate::workload;

/// Every feature that a mesh test of the suite needs. Source: the suite's `tests/mesh`, v1.6.3.
const FEATURES: [&str; 17] = [
    "Mesh",
    "HTTPRoute",
    "GRPCRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// Mesh tests of the suite. Source: the suite's table, v1.6.3.
pub const TESTS: usize = 22;

/// How the suite is run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Where the suite's report goes.
    pub report: Option<PathBuf>,
    /// Right answers in a row that make a check pass; the suite's own default is 3, which luck can give.
    pub successes: Option<u32>,
    /// Only this test.
    pub only: Option<String>,
    /// Marks on the suite's namespaces, `key=value`; that of injection, unless there is no mesh.
    pub labels: Vec<String>,
}

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was left out.
    Skipped,
}

/// How every test ended, in the order in which they did.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// A test's name, its outcome, and the seconds it took.
    pub tests: Vec<(String, Outcome, f64)>,
    /// The suite itself was content.
    pub succeeded: bool,
}

impl Summary {
    /// How many ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.tests.iter().filter(|(_, ended, _)| *ended == outcome).count()
    }

    /// Reads a line that the suite printed: `    --- PASS: TestConformance/MeshBasic (0.41s)`.
    fn read(&mut self, line: &str) {
        let Some((verdict, rest)) =
            line.trim_start().strip_prefix("--- ").and_then(|rest| rest.split_once(": "))
        else {
            return;
        };
        let outcome = match verdict {
            "PASS" => Outcome::Passed,
            "FAIL" => Outcome::Failed,
            "SKIP" => Outcome::Skipped,
            _ => return,
        };
        let Some((path, time)) = rest.split_once(" (") else { return };
        // A test's parts have more slashes, the suite itself has none.
        let Some(name) = path.strip_prefix("TestConformance/").filter(|name| !name.contains('/')) else {
            return;
        };
        if name.starts_with("Mesh") {
            let seconds = time.trim_end_matches("s)").parse().unwrap_or_default();
            self.tests.push((name.to_owned(), outcome, seconds));
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome, seconds) in self.tests.iter().filter(|(_, ended, _)| *ended != Outcome::Skipped) {
            writeln!(f, "{outcome:?}  {seconds:6.1} s  {name}")?;
        }
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|outcome| self.count(outcome));
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Cluster {
    /// Runs the suite's mesh tests; `log` gets everything it prints.
    ///
    /// # Errors
    /// The suite cannot be built or started. That tests fail is no error here.
    pub fn conformance(&self, run: &Run, log: &Path) -> anyhow::Result<Summary> {
        let suite = CONFORMANCE.folder()?;
        for image in images(&std::fs::read_to_string(suite.join("manifests.yaml"))?) {
            self.import_image(&workload::archive(&image)?)?;
        }
        let mut command = self.command(suite.join("conformance"));
        command.args(arguments(run)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut log = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        command.stderr(log.try_clone()?);
        let mut child = command.spawn().context("starting the suite")?;
        let mut summary = Summary::default();
        for line in child.stdout.take().map(|said| BufReader::new(said).split(b'\n')).into_iter().flatten() {
            let line = line?;
            log.write_all(&line)?;
            log.write_all(b"\n")?;
            summary.read(&String::from_utf8_lossy(&line));
        }
        summary.succeeded = child.wait()?.success();
        Ok(summary)
    }
}

fn arguments(run: &Run) -> Vec<String> {
    let mut arguments = vec![
        "-test.v".to_owned(),
        "-test.run=^TestConformance$".to_owned(),
        // Waiting in vain for each of its checks, the whole suite takes 20 minutes.
        "-test.timeout=60m".to_owned(),
        "-conformance-profiles=MESH-HTTP,MESH-GRPC".to_owned(),
        format!("-supported-features={}", FEATURES.join(",")),
        "-mesh-name=weft".to_owned(),
        "-organization=weft".to_owned(),
        "-project=weft".to_owned(),
        "-url=https://weft.dev".to_owned(),
        format!("-version=v{}", env!("CARGO_PKG_VERSION")),
        "-contact=@weft".to_owned(),
    ];
    if !run.labels.is_empty() {
        arguments.push(format!("-namespace-labels={}", run.labels.join(",")));
    }
    if let Some(report) = &run.report {
        arguments.push(format!("-report-output={}", report.display()));
    }
    if let Some(successes) = run.successes {
        arguments.push(format!("-timeout-config-overrides=RequiredConsecutiveSuccesses:{successes}"));
    }
    if let Some(only) = &run.only {
        arguments.push(format!("-run-test={only}"));
    }
    arguments
}

/// The images that manifests name.
fn images(manifests: &str) -> Vec<String> {
    let mut images: Vec<String> =
        manifests.lines().filter_map(|line| line.trim().strip_prefix("image: ")).map(str::to_owned).collect();
    images.sort();
    images.dedup();
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_verdicts_are_read_without_their_parts() {
        let mut summary = Summary::default();
        let printed = "=== RUN   TestConformance/MeshBasic\n--- FAIL: TestConformance (9.00s)\n    \
            --- PASS: TestConformance/MeshBasic (0.41s)\n        \
            --- PASS: TestConformance/MeshBasic/Send_to_service (0.40s)\n    \
            --- FAIL: TestConformance/MeshTrafficSplit (30.10s)\n    \
            --- SKIP: TestConformance/GatewayWithAttachedRoutes (0.00s)\n    \
            --- SKIP: TestConformance/MeshPorts (0.00s)\n";
        printed.lines().for_each(|line| summary.read(line));
        let of = |outcome| summary.count(outcome);
        assert_eq!((of(Outcome::Passed), of(Outcome::Failed), of(Outcome::Skipped)), (1, 1, 1));
        assert_eq!(summary.tests[1], ("MeshTrafficSplit".to_owned(), Outcome::Failed, 30.1));
    }

    #[test]
    fn an_image_is_named_once() {
        assert_eq!(
            images("  image: a:1\n  image: b:1\n image: a:1\nimagePullPolicy: Always\n"),
            ["a:1", "b:1"]
        );
    }
}
