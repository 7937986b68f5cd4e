//! Pods in network namespaces of their own around one node, as a CNI with a cable for each pod lays them
//! out: the mesh's real processes, real redirection, manifests by the test.
//!
//! ```text
//!   node  ── 10.88.1.1, fd88:1::1 ═══ pod 1  10.88.1.2, fd88:1::2
//!         ── 10.88.2.1, fd88:2::1 ═══ pod 2  10.88.2.2, fd88:2::2
//! ```
//!
//! Invariant: the node's end of a pod's cable is where its kubelet probes from; the manifests say so.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use weft_tests::netns::crew::{Crew, capture};
use weft_tests::netns::{Namespace, join};

/// Longer than any answer takes on a loaded machine; no test waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A node with pods.
pub(crate) struct Place {
    // Its processes end before their namespaces do.
    crew: Crew,
    pub(crate) node: Namespace,
    pods: BTreeMap<&'static str, Namespace>,
}

impl Place {
    /// Pods by name, in order: the first is pod 1. Every request is logged.
    pub(crate) fn new(pods: &[&'static str], manifests: &str) -> Self {
        Self::bare(pods, &format!("{MESH}---\n{manifests}"))
    }

    /// The same with a Mesh of the test's own among the manifests.
    pub(crate) fn bare(pods: &[&'static str], manifests: &str) -> Self {
        let node = Namespace::new().unwrap();
        node.set_parameter("net.ipv4.ip_forward", "1").unwrap();
        node.set_parameter("net.ipv6.conf.all.forwarding", "1").unwrap();
        let (mut tokens, mut spaces) = (String::new(), BTreeMap::new());
        for (number, name) in (1..).zip(pods) {
            let pod = Namespace::new().unwrap();
            join(
                &pod.end("eth0", &[&format!("10.88.{number}.2/24"), &format!("fd88:{number}::2/64")]),
                &node.end(
                    &format!("pod{number}"),
                    &[
                        &format!("10.88.{number}.1/24"),
                        &format!("10.88.{number}.3/24"),
                        &format!("fd88:{number}::1/64"),
                    ],
                ),
            )
            .unwrap();
            pod.route("0.0.0.0/0", &format!("10.88.{number}.1")).unwrap();
            pod.route("::/0", &format!("fd88:{number}::1")).unwrap();
            spaces.insert(*name, pod);
            tokens += &format!("- {{token: join-token-of-{name}, workload: test/{name}}}\n");
        }
        let program = env!("CARGO_BIN_EXE_weft-mesh-part");
        Self { crew: Crew::new(program, manifests, &tokens), node, pods: spaces }
    }

    /// A pod's namespace.
    pub(crate) fn pod(&self, name: &str) -> &Namespace {
        &self.pods[name]
    }

    /// Starts the control plane on the node.
    pub(crate) async fn start_control_plane(&mut self) {
        self.crew.start_control_plane(&self.node, "[::]:15010").await;
    }

    /// Redirects a pod's connections and starts its sidecar, set up as the injector does.
    pub(crate) async fn start_sidecar(&mut self, number: u8, pod: &str) {
        self.start_sidecar_with(number, pod, None).await;
    }

    /// The same, with one flag more.
    pub(crate) async fn start_sidecar_with(&mut self, number: u8, pod: &str, flag: Option<&str>) {
        capture(&self.pods[pod], "10.96.0.0/16,fd96::/64");
        let anchors = std::fs::read_to_string(self.crew.path("anchors.pem")).unwrap();
        let mut flags = vec![
            "proxy".to_owned(),
            format!("--workload=test/{pod}"),
            format!("--control-plane=10.88.{number}.1:15010"),
            format!("--trust-anchors-pem={anchors}"),
            format!("--join-token=join-token-of-{pod}"),
            "--transparent-outbound=[::]:15001".to_owned(),
            "--transparent-inbound=[::]:15006".to_owned(),
            "--admin=[::]:15020".to_owned(),
            format!("--access-log-file={}", self.crew.path(&format!("{pod}.access.log"))),
            "--workers=1".to_owned(),
        ];
        flags.extend(flag.map(str::to_owned));
        self.crew.start(&self.pods[pod], pod, &flags).await;
    }

    /// The first line of a sidecar's access log that is as asked, once there is one.
    pub(crate) async fn logged(&self, pod: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.crew.logged(pod, what, is_it).await
    }
}

/// An application in `namespace` that answers every request with its name, the request's target and the
/// address that it sees its caller at, and every other first line with the same line.
pub(crate) fn application(namespace: &Namespace, name: &'static str, address: &str) {
    let listener = namespace.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || serve(stream, name));
        }
    });
}

fn serve(mut stream: TcpStream, name: &str) {
    let (mut read, mut buffer) = (String::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => read.push_str(&String::from_utf8_lossy(&buffer[..count])),
            _ => return,
        }
        if read.starts_with("GET ") && read.contains("\r\n\r\n") {
            let target = read.split(' ').nth(1).unwrap_or_default();
            let body = format!("{name} {target}\n");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
            read.clear();
        } else if !read.starts_with("GET ") && read.contains('\n') {
            let _ = stream.write_all(format!("{name} {read}").as_bytes());
            read.clear();
        }
    }
}

/// What comes back for `bytes` sent from `namespace`, by `source` where one is given, until the peer ends
/// or resets the connection. The own half is ended first.
pub(crate) fn send(namespace: &Namespace, source: Option<&str>, address: &str, bytes: &[u8]) -> String {
    let address: SocketAddr = address.parse().unwrap();
    namespace.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if let Some(source) = source {
            let source: IpAddr = source.parse().unwrap();
            socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        }
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        if let Err(error) = socket.connect_timeout(&address.into(), DEADLINE) {
            return error.kind().to_string();
        }
        let mut stream = TcpStream::from(socket);
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
}

/// A request by GET and what it brings.
pub(crate) fn get(namespace: &Namespace, source: Option<&str>, address: &str, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n");
    send(namespace, source, address, request.as_bytes())
}

/// Runs a test's body.
pub(crate) fn run(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

const MESH: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {accessLog: All}
";
