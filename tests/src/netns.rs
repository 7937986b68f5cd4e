//! Network namespaces for tests: real interfaces, real redirection, real addresses, and no root.
//!
//! A test that begins with [`in_netns!`](crate::in_netns) runs its body in a process of its own that is
//! root in fresh user, network and process-id namespaces. There it makes further [`Namespace`]s (pods,
//! nodes, clients), joins them with [`join`], and runs closures and programs in them:
//!
//! ```text
//! #[test]
//! fn a_client_reaches_the_pod() {
//!     weft_tests::in_netns!(|| {
//!         let (pod, client) = (Namespace::new().unwrap(), Namespace::new().unwrap());
//!         join(&pod.end("eth0", &["10.0.0.1/24", "fd00::1/64"]), &client.end("eth0", &["10.0.0.2/24"])).unwrap();
//!         let listener = pod.run(|| TcpListener::bind("10.0.0.1:0").unwrap());
//!         let address = listener.local_addr().unwrap();
//!         client.run(|| TcpStream::connect(address).unwrap());
//!     });
//! }
//! ```
//!
//! A socket belongs to the namespace of the thread that made it and may be used from any thread.
//!
//! Invariant: when the test's process ends, however it ends, so does every process and every namespace
//! it made: it is the first process of its process-id namespace.
//! Invariant: no external program; where the kernel forbids namespaces the skip is written past the
//! test's captured output, and with `CI=true` it is a failure.
//! Invariant: `/proc` still shows the outer process ids: `/proc/self` is right, `/proc/<child>` is not.

pub mod crew;
mod link;
pub mod unshare;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub use link::{End, join};

/// Set for the inner process to the name of its test.
const INNER: &str = "WEFT_NETNS_TEST";
/// Exit code by which `weft-netns` says that the kernel forbids namespaces. Source: automake's "skipped".
pub const FORBIDDEN: i32 = 77;

/// What `weft-netns` says when it is in a user namespace of its own, whose users are to be mapped.
pub const FRESH_USERS: u8 = b'u';
/// What it says when it kept the users it had.
pub const SAME_USERS: u8 = b's';

/// Runs a closure as the test's body inside fresh namespaces; see [`netns`](crate::netns).
#[macro_export]
macro_rules! in_netns {
    ($body:expr) => {
        $crate::netns::enter(env!("CARGO_BIN_EXE_weft-netns"), $body)
    };
}

/// What [`in_netns!`](crate::in_netns) calls: `helper` is the `weft-netns` program.
///
/// Outside, starts this test binary again through the helper and fails with its output if it fails;
/// inside, runs `body`.
pub fn enter<F: FnOnce()>(helper: &str, body: F) {
    let test = test_name::<F>();
    if std::env::var(INNER).is_ok_and(|inner| inner == test) {
        // If the helper is killed, this process goes too, and with it all that it started.
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal).unwrap_or_else(|e| panic!("prctl: {e}"));
        link::loopback_up().unwrap_or_else(|e| panic!("loopback: {e}"));
        body();
        return;
    }
    let output = outside(helper, &test).unwrap_or_else(|e| panic!("starting {helper}: {e}"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(FORBIDDEN) {
        skip(&test, &said);
    } else {
        assert!(output.status.success(), "inside the namespace ({}):\n{said}", output.status);
        assert!(said.contains("1 passed"), "{test} did not run inside the namespace:\n{said}");
    }
}

/// Says past the captured output that a test could not run here; with `CI=true` that is a failure.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} must not be skipped in CI: {reason}");
    let line = format!("\nSKIPPED {test}: {}\n", reason.trim());
    // The test has no other way to be heard; if even this fails there is nobody to tell.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// The test's name as its harness knows it, from the path of its closure.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_crate, rest)| rest);
    path.split("::{{closure}}").next().unwrap_or(path).to_owned()
}

fn outside(helper: &str, test: &str) -> io::Result<Output> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(helper)
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INNER, test)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It ends without a word where namespaces are forbidden.
    let mut word = [0];
    let fresh_users = ours.read(&mut word).is_ok() && word == [FRESH_USERS];
    if fresh_users && let Err(error) = map_users(child.id()) {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    // The helper may be gone already; its exit status tells more than this write would.
    let _ = ours.write_all(b"m");
    child.wait_with_output()
}

/// Gives the process's fresh user namespace its users: all of them where we may, else root alone.
fn map_users(pid: u32) -> io::Result<()> {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let everyone = "0 0 65536\n";
    if std::fs::write(file("uid_map"), everyone).is_ok() {
        return std::fs::write(file("gid_map"), everyone);
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::fs::write(file("setgroups"), "deny")?;
    std::fs::write(file("uid_map"), format!("0 {uid} 1\n"))?;
    std::fs::write(file("gid_map"), format!("0 {gid} 1\n"))
}

/// Whether more users than root exist in this user namespace (they do where root ran the test).
pub fn has_other_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2).and_then(|count| count.parse().ok()).is_some_and(|count: u32| count > 1)
}

/// A network namespace; it lives until the last process, thread, socket or handle in it is gone.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A fresh one, in which only loopback exists (and is up).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        on_thread(|| {
            unshare::leave(UnshareFlags::NEWNET)?;
            link::loopback_up()?;
            Self::here()
        })
    }

    /// The one this thread is in.
    ///
    /// # Errors
    /// What opening `/proc/thread-self/ns/net` says.
    pub fn here() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Runs a closure on a thread of its own inside; sockets it makes stay inside wherever they are used.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.0.as_fd(), kind).unwrap_or_else(|e| panic!("setns: {e}"));
            body()
        })
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// What starting it says.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Running> {
        self.run(|| command.spawn()).map(Running)
    }

    /// One end of a cable: the interface's name here, and its addresses as `10.0.0.1/24`, `fd00::1/64`.
    pub fn end<'a>(&'a self, interface: &'a str, addresses: &'a [&'a str]) -> End<'a> {
        End { namespace: self, interface, addresses }
    }

    /// Sends what is for `network` (`0.0.0.0/0`, `fd01::/64`) to the neighbour `via`.
    ///
    /// # Errors
    /// A text that is no network or address, or what the kernel says.
    pub fn route(&self, network: &str, via: &str) -> io::Result<()> {
        self.run(|| link::add_route(network, via))
    }

    /// Sets a kernel parameter of this namespace: `net.ipv4.ip_forward`, `1`.
    ///
    /// # Errors
    /// What writing it says.
    pub fn set_parameter(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| std::fs::write(path, value))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A started program; killed and waited for when dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// The process, to wait for it or to read what it says.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// What waiting says.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and it is still to be reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a closure on a fresh thread, so that what it does to its namespaces ends with it.
fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
