//! What a mesh is made of, and the manifests that say so.
//!
//! Invariant: what is written here is what a user would write.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What the cluster says of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no such pod.
    Absent,
    /// It starts or ends: it is no endpoint.
    Unready,
    /// It is an endpoint.
    Ready,
}

/// A pod: its application's ports, what it calls, and the flags of its sidecar.
#[derive(Debug, Clone)]
pub struct Pod {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) meshed: bool,
    /// Its sidecar runs from the start.
    pub(super) started: bool,
    pub(super) standing: Standing,
    pub(super) serves: Vec<(u16, SocketAddr)>,
    pub(super) calls: Vec<String>,
    pub(super) flags: Vec<String>,
    account: Option<String>,
}

impl Pod {
    /// A pod named `app-number`.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ip: Ipv4Addr::LOCALHOST.into(),
            meshed: true,
            started: true,
            standing: Standing::Ready,
            serves: Vec::new(),
            calls: Vec::new(),
            flags: Vec::new(),
            account: None,
        }
    }

    /// Its port, and where the application behind it really listens.
    #[must_use]
    pub fn serves(mut self, port: u16, application: SocketAddr) -> Self {
        self.serves.push((port, application));
        self
    }

    /// A service it calls, `name:port`.
    #[must_use]
    pub fn calls(mut self, service: &str) -> Self {
        self.calls.push(service.to_owned());
        self
    }

    /// A flag of its sidecar.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.flags.push(format!("{flag}={value}"));
        self
    }

    /// A flag without a value.
    #[must_use]
    pub fn switch(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Another service account than its own.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }

    /// The pod is not in the mesh.
    #[must_use]
    pub fn without_sidecar(mut self) -> Self {
        self.meshed = false;
        self.started = false;
        self
    }

    /// The pod is in the mesh, but its sidecar is not started: the test may do that later, or put
    /// something else in its place.
    #[must_use]
    pub fn not_started(mut self) -> Self {
        self.started = false;
        self
    }

    /// The pod comes later: see [`Mesh::stand`](super::Mesh::stand).
    #[must_use]
    pub fn later(mut self) -> Self {
        self.standing = Standing::Absent;
        self.not_started()
    }

    pub(super) fn token(&self) -> String {
        format!("join-token-of-{}", self.name)
    }

    fn app(&self) -> &str {
        self.name.rsplit_once('-').map_or(&self.name, |(app, _number)| app)
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, app, ip) = (&self.name, self.app(), self.ip);
        let account = self.account.as_deref().unwrap_or(app);
        let sidecar = if self.meshed { "injected" } else { "'no'" };
        let ready = if self.standing == Standing::Ready { "'True'" } else { "'False'" };
        let ports: Vec<String> =
            self.serves.iter().map(|(port, _)| format!("{{containerPort: {port}}}")).collect();
        write!(
            f,
            "apiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}, namespace: test, labels: {{app: {app}}}, \
             annotations: {{weft.dev/sidecar: {sidecar}}}}}\n\
             spec: {{serviceAccountName: {account}, containers: [{{name: app, ports: [{}]}}]}}\n\
             status: {{podIP: {ip}, phase: Running, conditions: [{{type: Ready, status: {ready}}}]}}\n",
            ports.join(", ")
        )
    }
}

/// A Service of one port.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) app_protocol: Option<String>,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ip, port, app_protocol } = self;
        let protocol = app_protocol.as_ref().map(|text| format!(", appProtocol: {text}")).unwrap_or_default();
        write!(
            f,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: test}}\n\
             spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{name: main, port: {port}{protocol}}}]}}\n"
        )
    }
}
