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
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser as _;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use weft_proxy::init::{self, InitArgs};
use weft_tests::mesh::until;
use weft_tests::netns::{Namespace, Running, has_other_users, join};

/// Longer than any answer takes on a loaded machine; no test waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The group of the sidecars: by it their own connections are told from the application's.
const GROUP: u32 = 4711;

/// A node with pods.
pub(crate) struct Place {
    pub(crate) node: Namespace,
    pods: BTreeMap<&'static str, Namespace>,
    folder: PathBuf,
    running: Vec<Running>,
}

impl Place {
    /// Pods by name, in order: the first is pod 1. Every request is logged.
    pub(crate) fn new(pods: &[&'static str], manifests: &str) -> Self {
        let node = Namespace::new().unwrap();
        node.set_parameter("net.ipv4.ip_forward", "1").unwrap();
        node.set_parameter("net.ipv6.conf.all.forwarding", "1").unwrap();
        // By chance, because process ids repeat in namespaces of their own.
        let chance = std::hash::RandomState::new().hash_one(manifests);
        let folder = std::env::temp_dir().join(format!("weft-pods-{chance:016x}"));
        std::fs::create_dir_all(folder.join("manifests")).unwrap();
        let mut place = Self { node, pods: BTreeMap::new(), folder, running: Vec::new() };
        let mut tokens = String::new();
        for (number, name) in (1..).zip(pods) {
            let pod = Namespace::new().unwrap();
            join(
                &pod.end("eth0", &[&format!("10.88.{number}.2/24"), &format!("fd88:{number}::2/64")]),
                &place.node.end(
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
            place.pods.insert(name, pod);
            tokens += &format!("- {{token: join-token-of-{name}, workload: test/{name}}}\n");
        }
        std::fs::write(place.folder.join("tokens.yaml"), tokens).unwrap();
        std::fs::write(place.folder.join("manifests/all.yaml"), format!("{MESH}---\n{manifests}")).unwrap();
        place
    }

    /// A pod's namespace.
    pub(crate) fn pod(&self, name: &str) -> &Namespace {
        &self.pods[name]
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Starts a process of the mesh and waits until it is ready.
    async fn start(&mut self, namespace: Option<&str>, name: &str, flags: &[String]) {
        let ready = self.path(&format!("{name}.ready"));
        let log = File::create(self.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-mesh-part"));
        command.args(flags).arg(format!("--ready-file={ready}")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if has_other_users() {
            std::os::unix::process::CommandExt::gid(&mut command, GROUP);
        }
        let namespace = namespace.map_or(&self.node, |pod| &self.pods[pod]);
        let running = namespace.spawn(&mut command).unwrap();
        self.running.push(running);
        until(&format!("{name} is ready"), async || std::path::Path::new(&ready).exists().then_some(()))
            .await;
    }

    /// Starts the control plane on the node.
    pub(crate) async fn start_control_plane(&mut self) {
        let flags = [
            "control-plane".to_owned(),
            "--listen=[::]:15010".to_owned(),
            "--admin=127.0.0.1:0".to_owned(),
            format!("--manifests={}", self.path("manifests")),
            format!("--join-tokens={}", self.path("tokens.yaml")),
            format!("--write-trust-anchors={}", self.path("anchors.pem")),
        ];
        self.start(None, "control-plane", &flags).await;
    }

    /// Redirects a pod's connections and starts its sidecar, set up as the injector does.
    pub(crate) async fn start_sidecar(&mut self, number: u8, pod: &str) {
        self.start_sidecar_with(number, pod, None).await;
    }

    /// The same, with one flag more.
    pub(crate) async fn start_sidecar_with(&mut self, number: u8, pod: &str, flag: Option<&str>) {
        capture(&self.pods[pod]);
        let anchors = std::fs::read_to_string(self.path("anchors.pem")).unwrap();
        let mut flags = vec![
            "proxy".to_owned(),
            format!("--workload=test/{pod}"),
            format!("--control-plane=10.88.{number}.1:15010"),
            format!("--trust-anchors-pem={anchors}"),
            format!("--join-token=join-token-of-{pod}"),
            "--transparent-outbound=[::]:15001".to_owned(),
            "--transparent-inbound=[::]:15006".to_owned(),
            "--admin=[::]:15020".to_owned(),
            format!("--access-log-file={}", self.path(&format!("{pod}.access.log"))),
            "--workers=1".to_owned(),
        ];
        flags.extend(flag.map(str::to_owned));
        self.start(Some(pod), pod, &flags).await;
    }

    /// The first line of a sidecar's access log that is as asked, once there is one.
    pub(crate) async fn logged(&self, pod: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let path = self.path(&format!("{pod}.access.log"));
        until(what, async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|line| is_it(line))
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.clear();
        if std::thread::panicking() {
            let logs = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
            for log in logs.filter(|log| log.path().extension().is_some_and(|end| end == "log")) {
                let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                eprintln!("--- {} said:\n{text}", log.path().display());
            }
        }
        // A folder that stays is no failure.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `weft-proxy init` in a pod.
fn capture(namespace: &Namespace) {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        init: InitArgs,
    }
    let group = format!("--proxy-gid={GROUP}");
    // Where root is the only user there is, the sidecars are told from the application by where they go.
    let flag = if has_other_users() { &group } else { "--only-outbound-cidrs=10.96.0.0/16,fd96::/64" };
    let args = Line::try_parse_from(["init", flag]).unwrap().init;
    namespace.run(|| init::run(args)).unwrap();
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
