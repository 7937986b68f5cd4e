//! Manifests of `weft-load`: a server with its Service, a steady client.
//!
//! Invariant: nothing in them speaks of the mesh, unless the scenario says so.

use std::fmt::Write as _;

/// The name by which pods ask for the workload.
pub const LOAD_IMAGE: &str = "localhost/weft/load:test";

/// A deployment that serves and can be asked to ask, with a service account and a Service of its name.
///
/// The Service: HTTP on 80 (of the port that the pods name so) and on 8081 (which says nothing of its protocol), lines on 9090, greeted lines on 9091.
#[derive(Debug, Clone)]
pub struct App {
    name: String,
    version: String,
    replicas: u32,
    arguments: Vec<String>,
    annotations: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    probes: String,
    extra: String,
}

impl App {
    /// One replica that leaves in good order.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "v1".to_owned(),
            replicas: 1,
            arguments: Vec::new(),
            annotations: Vec::new(),
            labels: Vec::new(),
            probes: "readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}".to_owned(),
            extra: String::new(),
        }
    }

    /// Told with every answer, part of the deployment's name (`server-v2`), and a label.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// So many pods.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// More arguments of `weft-load serve`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// An annotation of the pods.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A label of the pods.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The container's probes, instead of a readiness probe over HTTP: fields of a container, in flow style.
    #[must_use]
    pub fn probes(mut self, probes: &str) -> Self {
        probes.clone_into(&mut self.probes);
        self
    }

    /// More fields of the pods' spec.
    #[must_use]
    pub fn pod(mut self, extra: &str) -> Self {
        extra.clone_into(&mut self.extra);
        self
    }

    /// The deployment's name.
    pub fn deployment(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// The manifests.
    pub fn manifests(&self) -> String {
        let Self { name, version, replicas, probes, extra, .. } = self;
        let more = listed(&self.arguments);
        let annotations = mapped(&self.annotations);
        let labels = mapped(&self.labels);
        let deployment = self.deployment();
        format!(
            r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{app: {name}}}
  ports:
  - {{name: http, port: 80, targetPort: http, appProtocol: http}}
  - {{name: web, port: 8081}}
  - {{name: lines, port: 9090}}
  - {{name: greeted, port: 9091}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {deployment}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}, version: {version}}}}}
  template:
    metadata:
      labels: {{app: {name}, version: {version}{labels}}}
      annotations: {{weft-tests/of: scenario{annotations}}}
    spec:
      serviceAccountName: {name}
      {extra}
      containers:
      - name: app
        image: {LOAD_IMAGE}
        imagePullPolicy: Never
        args: [serve, --http=8080, --http=8081, --tcp=9090, --greet=9091, --version={version}{more}]
        ports: [{{name: http, containerPort: 8080}}, {{containerPort: 8081}}, {{containerPort: 9090}}, {{containerPort: 9091}}]
        {probes}
"#
        )
    }
}

fn listed(words: &[String]) -> String {
    words.iter().fold(String::new(), |mut text, word| {
        // Writing to a text does not fail.
        let _ = write!(text, ", {word:?}");
        text
    })
}

fn mapped(pairs: &[(String, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        // As above.
        let _ = write!(text, ", {name}: {value:?}");
        text
    })
}

/// A deployment of a steady client with a service account of its name.
pub fn load_manifest(name: &str, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let arguments = listed(&arguments);
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      containers:
      - name: app
        image: {LOAD_IMAGE}
        imagePullPolicy: Never
        args: [load{arguments}]
"#
    )
}
