//! `weft-netns PROGRAM ARGS...`: runs a program as root of fresh user, network and process-id namespaces.
//!
//! Started by `weft_tests::netns` only: a process with one thread is what a user namespace asks for,
//! and a test binary has several. Standard input is a socket to the starter, who writes the user maps
//! when this process says (one byte) which user namespace it is in, and says so in turn (one byte).
//!
//! Invariant: this process holds nothing but the program it waits for; when it dies the program dies.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::{env, io};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use weft_tests::netns::{FORBIDDEN, FRESH_USERS, SAME_USERS, unshare};

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("weft-netns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<u8> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut starter = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let fresh = UnshareFlags::NEWNET | UnshareFlags::NEWPID;
    if let Err(error) = unshare::leave(fresh | UnshareFlags::NEWUSER) {
        // Real root may do without a user namespace.
        if unshare::leave(fresh).is_err() {
            eprintln!("this kernel forbids unprivileged user namespaces ({error})");
            return Ok(u8::try_from(FORBIDDEN).unwrap_or(u8::MAX));
        }
        starter.write_all(&[SAME_USERS])?;
    } else {
        starter.write_all(&[FRESH_USERS])?;
    }
    starter.read_exact(&mut [0])?;
    let mut words = env::args_os().skip(1);
    let program = words.next().ok_or_else(|| io::Error::other("no program given"))?;
    let status = Command::new(program).args(words).stdin(Stdio::null()).status()?;
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
