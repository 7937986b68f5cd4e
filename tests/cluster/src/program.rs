//! Running other programs, with errors that say what was run and what it answered.
//!
//! Invariant: what a program wrote to its standard error is in the error, never lost.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// Runs a program to its end and gives what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    checked(command, &[])
}

/// [`output`] of a program that reads `input`.
pub(crate) fn checked(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
    let output = fed(command, input)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{} ({}):\n{}{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            text.trim_end()
        );
    }
    Ok(text)
}

/// What a program that reads `input` answers, whether it succeeds or not.
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> anyhow::Result<Output> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", line(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A program that ends without reading closes the pipe; its exit status tells more.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    child.wait_with_output().with_context(|| format!("waiting for {}", line(command)))
}

/// A command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Where a program is, by `PATH` and the folders that only root's `PATH` has.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administrators)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// This crate's own program: this process, or what the build put beside this test.
pub(crate) fn weft_dev() -> anyhow::Result<PathBuf> {
    beside("weft-dev")
}

/// A program of this crate: this process, or what the build put beside this test.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let beside = me.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    std::iter::once(me.clone())
        .filter(|file| file.file_name() == Some(OsStr::new(name)))
        .chain(beside)
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not built: it should be beside {}", me.display()))
}

/// The last lines of a file, for an error.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
