//! What the tests' pods run: Istio's echo server and client, in an image made here.
//!
//! The server answers with what it received, over HTTP, gRPC, TCP and TLS, and can speak first; the client
//! prints what it got back in lines that [`Answer`] reads.
//!
//! Invariant: the programs are the original ones; only the image around them is ours.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::image::Image;
use crate::part::ECHO;

/// The name by which tests' pods ask for it.
pub const ECHO_IMAGE: &str = "localhost/echo:1";

/// The echo image under a name of the caller's choice: the conformance suite's manifests name their own.
///
/// # Errors
/// The programs cannot be built or read.
pub fn echo(reference: &str) -> anyhow::Result<Image> {
    let programs = ECHO.folder()?;
    let names = ["localhost".to_owned(), "echo".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).context("the echo server's certificate")?;
    Ok(Image::new(reference)
        .program("/usr/local/bin/server", &programs.join("server"))?
        .program("/usr/local/bin/client", &programs.join("client"))?
        .file("/cert.crt", certified.cert.pem(), 0o644)
        .file("/cert.key", certified.signing_key.serialize_pem(), 0o644)
        .folder("/tmp", 0o1777)
        .search_path("/usr/local/bin")
        .entry_point(&["/usr/local/bin/server"]))
}

/// The archive of the echo image under a name, kept in the cache beside its programs.
///
/// # Errors
/// The programs cannot be built, or the archive cannot be written.
pub fn archive(reference: &str) -> anyhow::Result<PathBuf> {
    let name: String = reference.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let archive = ECHO.folder()?.join(format!("{name}.tar"));
    if !archive.exists() {
        echo(reference)?.save(&archive)?;
    }
    Ok(archive)
}

/// Manifests of an echo Deployment and its Service: HTTP on 80, TCP on 9090, gRPC on 7070, TLS on 443.
///
/// `app` and `version` are the pods' labels; the Service, named `app`, takes every version.
pub fn manifests(namespace: &str, app: &str, version: &str) -> String {
    let name = if version.is_empty() { app.to_owned() } else { format!("{app}-{version}") };
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {app}, namespace: {namespace}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {app}, namespace: {namespace}}}
spec:
  selector: {{app: {app}}}
  ports:
  - {{name: http, port: 80, targetPort: 8080, appProtocol: http}}
  - {{name: https, port: 443, targetPort: 8443}}
  - {{name: tcp, port: 9090}}
  - {{name: grpc, port: 7070, appProtocol: kubernetes.io/h2c}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {app}, version: "{version}"}}}}
  template:
    metadata: {{labels: {{app: {app}, version: "{version}"}}}}
    spec:
      serviceAccountName: {app}
      terminationGracePeriodSeconds: 5
      containers:
      - name: echo
        image: {ECHO_IMAGE}
        imagePullPolicy: Never
        args:
        - --version={version}
        - --port=8080
        - --port=8443
        - --tls=8443
        - --crt=/cert.crt
        - --key=/cert.key
        - --tcp=9090
        - --grpc=7070
        ports: [{{containerPort: 8080}}, {{containerPort: 8443}}, {{containerPort: 9090}}, {{containerPort: 7070}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"#
    )
}

/// One answer as the echo client prints it: `[0 body] Name=value` lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(Vec<(String, String)>);

impl Answer {
    /// Every answer in what the client printed.
    pub fn all(printed: &str) -> Vec<Self> {
        let mut answers: Vec<(String, Self)> = Vec::new();
        for line in printed.lines() {
            let Some((number, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) else {
                continue;
            };
            let Some((name, value)) = rest.trim_start().split_once('=') else { continue };
            let number = number.split_whitespace().next().unwrap_or_default();
            if answers.last().is_none_or(|(last, _)| last != number) {
                answers.push((number.to_owned(), Self(Vec::new())));
            }
            if let Some((_, Self(fields))) = answers.last_mut() {
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// A field that is there once: `StatusCode`, `Hostname`, `ServiceVersion`, `Host`, `Method`, `URL`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A header of the request as the server received it.
    pub fn request_header(&self, name: &str) -> Option<&str> {
        self.header("RequestHeader", name)
    }

    /// A header of the answer as the client received it.
    pub fn response_header(&self, name: &str) -> Option<&str> {
        self.header("ResponseHeader", name)
    }

    fn header(&self, kind: &str, name: &str) -> Option<&str> {
        let headers = self.0.iter().filter(|(field, _)| field == kind);
        let mut named = headers.filter_map(|(_, header)| header.split_once(':'));
        named.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Cluster {
    /// Calls a URL from a workload's echo container: `call("shop", "deployment/web", "http://cart/", &[])`.
    /// Flags are the echo client's: `--count=20`, `--header=name:value`, `--method=POST`.
    ///
    /// # Errors
    /// No answer came, or the client could not be run.
    pub fn call(
        &self,
        namespace: &str,
        from: &str,
        url: &str,
        flags: &[&str],
    ) -> anyhow::Result<Vec<Answer>> {
        let printed = self.exec(namespace, from, "echo", &[&["client", url], flags].concat())?;
        Ok(Answer::all(&printed))
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn the_clients_lines_become_answers() {
        let printed = "2026-01-01T00:00:00Z\tinfo\tstarting\n\
            [0] Url=http://web/\n[0] StatusCode=200\n[0] ResponseHeader=Content-Type:text/plain\n\
            [0 body] RequestHeader=X-One:1\n[0 body] Hostname=web-1\n\
            [1] StatusCode=503\n";
        let answers = Answer::all(printed);
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].field("StatusCode"), Some("200"));
        assert_eq!(answers[0].field("Hostname"), Some("web-1"));
        assert_eq!(answers[0].request_header("x-one"), Some("1"));
        assert_eq!(answers[0].response_header("content-type"), Some("text/plain"));
        assert_eq!(answers[1].field("StatusCode"), Some("503"));
    }
}
