//! Booting the node, inside its namespaces: mounts, network, programs, and waiting until it is ready.
//!
//! Invariant: runs only inside fresh namespaces: what it mounts and configures is seen by nobody else.
//! Invariant: a program that ends ends the node, with the end of that program's log in the error.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::process::{self, Daemon};
use super::settings::{HIDDEN, NODE, SHOWN, behind, plans};
use super::{Options, State, pki, settings};
use crate::{look, program};

/// For each step. Source: measured, the slowest takes 4 s on an idle machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at whether every program still runs.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Between two looks at something that is to become ready.
const PAUSE: Duration = Duration::from_millis(50);

/// The node, as its own second process sees it.
pub(super) struct Node {
    state: State,
    options: Options,
    daemons: Vec<(&'static str, Child)>,
    began: Instant,
}

impl Node {
    pub(super) fn new(state: State) -> anyhow::Result<Self> {
        let options = Options::read(&state)?;
        Ok(Self { state, options, daemons: Vec::new(), began: Instant::now() })
    }

    /// Makes the namespaces a node: its folders, its addresses, its configuration.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        settings::write(&self.state, &self.options)?;
        pki::write(&self.state, &self.options).context("keys and certificates")?;
        self.mount().context("mounts")?;
        self.connect().context("network")?;
        fs::copy(self.state.file("network.json"), "/etc/cni/net.d/pods.conflist")?;
        self.say("prepared")
    }

    fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["--make-rshared", "/"])?;
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
        fs::create_dir_all("/run/lock")?;
        fs::create_dir_all("/run/netns")?;
        for folder in HIDDEN {
            let ours = behind(&self.state, folder);
            fs::create_dir_all(&ours)?;
            // An empty mount point on the machine is the one thing that stays.
            fs::create_dir_all(folder)?;
            run("mount", &["--bind", text(&ours)?, folder])?;
        }
        for (file, value) in SHOWN {
            let ours = behind(&self.state, file);
            fs::create_dir_all(ours.parent().unwrap_or(Path::new("/")))?;
            fs::write(&ours, format!("{value}\n"))?;
            run("mount", &["--bind", "-o", "ro", text(&ours)?, file])?;
        }
        Ok(())
    }

    /// The node's addresses sit on a cable whose two ends are both here: there is no way out. The route
    /// is needed all the same: without one, calling a Service fails before it is translated.
    fn connect(&self) -> anyhow::Result<()> {
        run("ip", &["link", "set", "lo", "up"])?;
        run("ip", &["link", "add", "node0", "type", "veth", "peer", "name", "node0p"])?;
        run("ip", &["link", "set", "node0p", "up"])?;
        run("ip", &["link", "set", "node0", "up"])?;
        for plan in plans(&self.options) {
            let address = format!("{}/{}", plan.node, plan.prefix);
            if plan.node.contains(':') {
                fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
                run("ip", &["-6", "address", "add", &address, "dev", "node0", "nodad"])?;
                run("ip", &["-6", "route", "add", "default", "dev", "node0", "src", plan.node])?;
            } else {
                fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
                run("ip", &["address", "add", &address, "dev", "node0"])?;
                run("ip", &["route", "add", "default", "dev", "node0", "src", plan.node])?;
            }
        }
        Ok(())
    }

    /// Starts the programs, each when what it needs is there.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.launch(process::containerd(&self.state))?;
        self.launch(process::etcd(&self.state))?;
        self.launch(process::api_server(&self.state, &self.options))?;
        self.until("containerd", |_| run("ctr", &["version"]))?;
        self.import_images()?;
        self.until("the API server", |node| node.kubectl(&["get", "--raw=/readyz"]))?;
        self.launch(process::controller_manager(&self.state, &self.options))?;
        self.launch(process::scheduler(&self.state))?;
        self.launch(process::kubelet(&self.state, &self.options))?;
        self.launch(process::kube_proxy(&self.state))?;
        let objects = self.state.file("objects.yaml");
        let objects = format!("--filename={}", objects.display());
        self.until("the cluster's objects", |node| node.kubectl(&["apply", "--server-side", &objects]))?;
        self.until("the node", |node| {
            node.kubectl(&["wait", "--for=condition=Ready", "--timeout=20s", &format!("node/{NODE}")])
        })?;
        self.until("the name server", |node| {
            let deployment = "deployment/coredns";
            node.kubectl(&["wait", "-nkube-system", "--for=condition=Available", "--timeout=20s", deployment])
        })?;
        self.until("the default service account", |node| node.kubectl(&["get", "serviceaccount", "default"]))
    }

    fn import_images(&self) -> anyhow::Result<()> {
        let mut archives = self.options.images.clone();
        for entry in fs::read_dir(self.state.file("images"))? {
            archives.push(entry?.path());
        }
        for archive in archives {
            program::output(Command::new("ctr").args(process::IMPORT).arg(archive))?;
        }
        self.say("images are loaded")
    }

    /// Blocks while every program runs.
    pub(super) fn watch(&mut self) -> anyhow::Result<()> {
        self.say("up")?;
        loop {
            self.check()?;
            std::thread::park_timeout(HEARTBEAT);
        }
    }

    fn launch(&mut self, daemon: Daemon) -> anyhow::Result<()> {
        let log = File::create(self.log(daemon.program))?;
        let programs = fs::read_to_string(self.state.file("programs"))?;
        let path = process::path(Path::new(&programs));
        // Programs of our own come from the cache, the others from the system.
        let file = Path::new(&programs).join(daemon.program);
        let file = if file.exists() { file } else { daemon.program.into() };
        let mut command = Command::new(file);
        command.args(daemon.arguments).env("PATH", path).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context(daemon.program)?;
        self.daemons.push((daemon.program, child));
        Ok(())
    }

    /// Tries until it succeeds; ends early if a program does.
    fn until(&mut self, what: &str, attempt: impl Fn(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut last = None;
        let found = look::until(PAUSE, DEADLINE, || match attempt(self) {
            Ok(()) => Some(Ok(())),
            Err(error) => {
                last = Some(error);
                self.check().with_context(|| format!("while waiting for {what}")).err().map(Err)
            }
        });
        found.unwrap_or_else(|| {
            let error = last.unwrap_or_else(|| anyhow!("nothing was tried"));
            Err(error.context(format!("{what}: not ready after {DEADLINE:?}\n{}", self.tails())))
        })?;
        self.say(&format!("{what}: ready"))
    }

    /// Fails if a program has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        for (program, child) in &mut self.daemons {
            if let Some(status) = child.try_wait()? {
                let log = self.state.file("logs").join(format!("{program}.log"));
                bail!("{program} ended ({status}):\n{}", program::tail(&log, 30));
            }
        }
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let programs = fs::read_to_string(self.state.file("programs"))?;
        let mut command = Command::new(Path::new(&programs).join("kubectl"));
        command.env("KUBECONFIG", self.state.file("kubeconfig/admin")).args(arguments);
        program::output(&mut command).map(|_| ())
    }

    fn tails(&self) -> String {
        let tail = |(name, _): &(&str, Child)| format!("--- {name}\n{}\n", program::tail(&self.log(name), 8));
        self.daemons.iter().map(tail).collect()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.state.file("logs").join(format!("{name}.log"))
    }

    fn say(&self, what: &str) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stdout(), "{:6.2} s  {what}", self.began.elapsed().as_secs_f32())?)
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    program::output(Command::new(program).args(arguments)).map(|_| ())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
