//! The keeper: starts the namespaces, waits for a reason to end them, and cleans up after them.
//!
//! Invariant: while it lives it holds the state folder's lock; when it ends by itself, the cluster's
//! processes, cgroups and folder are gone.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::State;
use super::cgroup;
use super::network::Network;
use super::settings::API_PORT;
use crate::{look, program};

/// What it says when the cluster is up, before the process id of its init.
pub(super) const READY: &str = "ready ";
/// The administrator's kubeconfig for use outside, in the state folder.
pub(super) const OUTSIDE: &str = "kubeconfig/outside";
/// Source: measured, 10 s with a warm cache on an idle machine; ten times that on a busy one.
const UP_DEADLINE: Duration = Duration::from_secs(180);

/// What init gets for ending everything by itself.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a cluster ends.
enum Reason {
    /// The process that asked for it is gone, or somebody said so.
    Dismissed,
    /// Its init ended, so it failed.
    Fell,
}

/// Keeps the cluster of a state folder until it is to end; `stay` is without the lifeline.
///
/// # Errors
/// What failed; the cluster's own failures are said to standard output, where the starter listens.
pub fn keep(folder: &Path, stay: bool) -> anyhow::Result<()> {
    let state = State::at(folder);
    let Some(_lock) = state.lock()? else { bail!("{} has a keeper", folder.display()) };
    let result = keep_locked(&state, stay);
    if let Err(error) = &result {
        // The starter may be gone; then nobody is to be told.
        let _ = writeln!(std::io::stdout(), "{error:#}");
    }
    state.remove()?;
    result
}

fn keep_locked(state: &State, stay: bool) -> anyhow::Result<()> {
    let (tell, reasons) = mpsc::channel();
    if !stay {
        let tell = tell.clone();
        std::thread::spawn(move || {
            await_end(&mut std::io::stdin());
            tell.send(Reason::Dismissed)
        });
    }
    let socket = UnixListener::bind(state.file("keeper")).context("the keeper's socket")?;
    let asked = tell.clone();
    std::thread::spawn(move || {
        let visitor = socket.accept();
        // The cluster may be ending already. The visitor is held until this process is gone.
        let _ = asked.send(Reason::Dismissed);
        loop {
            std::thread::park();
            let _ = &visitor;
        }
    });
    cgroup::make(&state.name()).context("making cgroups")?;
    let mut space = start(state)?;
    let result = watch(state, &mut space, &reasons);
    end(&mut space);
    result
}

/// Waits until it is up, says so, and waits for a reason to end.
fn watch(state: &State, space: &mut Child, reasons: &mpsc::Receiver<Reason>) -> anyhow::Result<()> {
    let init = first_child(space)?;
    let began = Instant::now();
    let mut up = false;
    loop {
        if !up && state.file("up").exists() {
            open_door(state, init)?;
            std::fs::write(state.file("ready.new"), init.to_string())?;
            std::fs::rename(state.file("ready.new"), state.file("ready"))?;
            writeln!(std::io::stdout(), "{READY}{init}")?;
            up = true;
        }
        let reason = match reasons.recv_timeout(Duration::from_millis(20)) {
            Ok(reason) => reason,
            Err(_) if space.try_wait()?.is_some() => Reason::Fell,
            Err(_) if !up && began.elapsed() > UP_DEADLINE => {
                bail!("not up after {UP_DEADLINE:?}\n{}", said(state))
            }
            Err(_) => continue,
        };
        return match reason {
            Reason::Dismissed => Ok(()),
            Reason::Fell => bail!("{}", said(state)),
        };
    }
}

/// Lets this machine reach the API server, by a kubeconfig that says so.
fn open_door(state: &State, init: u32) -> anyhow::Result<()> {
    let address = Network::of(init)?.open_door().context("the door to the API server")?;
    let inside = std::fs::read_to_string(state.file("kubeconfig/admin"))?;
    let outside = inside.replace(&format!("127.0.0.1:{API_PORT}"), &address.to_string());
    Ok(std::fs::write(state.file(OUTSIDE), outside)?)
}

/// What the inside said, which ends with what failed.
fn said(state: &State) -> String {
    program::tail(&state.file("logs/boot.log"), 60)
}

fn start(state: &State) -> anyhow::Result<Child> {
    let log = std::fs::File::create(state.file("logs/boot.log"))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--propagation", "private"]).arg(program::weft_dev()?).args(["node", "init"]);
    command.arg(state.folder()).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("starting unshare")
}

/// `unshare` itself stays outside; its child is the first process inside.
fn first_child(space: &mut Child) -> anyhow::Result<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children", pid = space.id());
    let found = look::until(PAUSE, UP_DEADLINE, || {
        let children = std::fs::read_to_string(&file).unwrap_or_default();
        let child = children.split_whitespace().next().map(str::to_owned);
        (child.is_some() || !matches!(space.try_wait(), Ok(None))).then_some(child)
    });
    Ok(found.flatten().context("no namespaces: unshare ended")?.parse()?)
}

/// Ends every process inside and waits for it.
fn end(space: &mut Child) {
    // Closing its standard input ends init and with it all; the kill is for an init that hangs.
    drop(space.stdin.take());
    let ended = look::until(PAUSE, LAST_WORDS, || space.try_wait().ok().flatten());
    if ended.is_none() {
        // Either may say that it has ended meanwhile.
        let _ = space.kill();
        let _ = space.wait();
    }
}

/// Blocks until the other end of a pipe is closed.
pub(super) fn await_end(from: &mut impl std::io::Read) {
    let mut byte = [0];
    while matches!(from.read(&mut byte), Ok(1..)) {}
}

/// Asks the keeper of a state folder to end, and waits until it has.
pub(super) fn dismiss(state: &State) -> anyhow::Result<()> {
    let mut keeper = UnixStream::connect(state.file("keeper"))
        .with_context(|| format!("no cluster at {}", state.folder().display()))?;
    let mut nothing = Vec::new();
    keeper.read_to_end(&mut nothing)?;
    Ok(())
}
