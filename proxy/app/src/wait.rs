//! `weft-proxy wait`: waits until the sidecar beside it is ready, and says what it waits for.
//!
//! Where a kubelet knows no native sidecars, this is what keeps the application's containers from starting
//! too early (a `postStart` hook); as an `exec` probe it puts the sidecar's own words into the pod's events,
//! which an HTTP probe does not.
//!
//! Invariant: it asks and changes nothing; each question has a deadline.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::settings;

/// Wait until the sidecar is ready.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct WaitArgs {
    /// The sidecar's admin server.
    #[arg(long, env = "WEFT_ADMIN", value_name = "ADDR", default_value_t = settings::ADMIN)]
    pub admin: SocketAddr,
    /// Give up after this; the end is then an error that says what was missing.
    #[arg(long, value_name = "SPAN", value_parser = settings::span, default_value = "5m")]
    pub timeout: Duration,
    /// Ask once, for a probe.
    #[arg(long)]
    pub once: bool,
}

/// Waits as the flags say.
///
/// # Errors
/// Why the sidecar is not ready.
pub fn run(args: &WaitArgs) -> anyhow::Result<()> {
    let end = Instant::now() + args.timeout;
    let mut said = String::new();
    loop {
        let Err(why) = ready(args.admin) else { return Ok(()) };
        if args.once || Instant::now() >= end {
            anyhow::bail!("the sidecar is not ready: {why}");
        }
        if why != said {
            // What nobody reads need not stop the wait.
            let _ = writeln!(std::io::stderr(), "waiting for the sidecar: {why}");
            said = why;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether the sidecar is ready; else its words, or why there are none.
fn ready(admin: SocketAddr) -> Result<(), String> {
    let answer = reach(admin).and_then(ask).map_err(|error| format!("{admin} does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(body.trim().to_owned()),
    }
}

/// An address that stands for all of a machine's is asked on loopback.
fn reach(admin: SocketAddr) -> std::io::Result<TcpStream> {
    let loopback: &[IpAddr] = &[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let own = [admin.ip()];
    let addresses = if admin.ip().is_unspecified() { loopback } else { &own };
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect_timeout(&SocketAddr::new(*address, admin.port()), ANSWER) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(mut stream: TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Source: short beside the start of any application, long beside a question on loopback.
const PAUSE: Duration = Duration::from_millis(200);
/// Source: the admin server answers from memory; a kubelet's own default is 1 s.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of an answer. Source: a head and a sentence.
const MOST: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A sidecar that answers one question after the other.
    fn sidecar(answers: &'static [(u16, &'static str)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                let answer = format!("HTTP/1.1 {status} any\r\nconnection: close\r\n\r\n{body}\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    fn args(admin: SocketAddr, once: bool) -> WaitArgs {
        WaitArgs { admin, timeout: Duration::from_secs(60), once }
    }

    #[test]
    fn it_waits_as_long_as_the_sidecar_says_why_not() {
        let answers = &[(503, "no certificate yet"), (503, "no configuration yet"), (200, "ready")];
        run(&args(sidecar(answers), false)).unwrap();
    }

    #[test]
    fn asked_once_it_repeats_the_sidecars_words() {
        let error = run(&args(sidecar(&[(503, "no certificate yet: why")]), true)).unwrap_err();
        assert_eq!(error.to_string(), "the sidecar is not ready: no certificate yet: why");
        run(&args(sidecar(&[(200, "ready")]), true)).unwrap();
    }

    #[test]
    fn an_address_of_all_is_asked_on_loopback_and_silence_is_named() {
        let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), sidecar(&[(200, "ready")]).port());
        run(&args(everywhere, true)).unwrap();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = run(&args(nobody, true)).unwrap_err().to_string();
        assert!(error.contains("does not answer"), "{error}");
    }
}
