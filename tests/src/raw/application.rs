//! The application behind the sidecar: keeps every byte that reached it, answers what it is told to.
//!
//! Invariant: what it keeps are whole requests, in the order of their ends, or what was left at a
//! connection's end.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::PATIENCE;
use super::client::{chunked_end, head_end};

/// What to do with one request; gives whether the connection goes on.
pub type Answering = Arc<dyn Fn(&mut TcpStream, &[u8]) -> bool + Send + Sync>;
/// What to do with a connection before anything is read; gives whether it goes on.
pub type Greeting = Arc<dyn Fn(&mut TcpStream) -> bool + Send + Sync>;

/// An application on a free port.
pub struct Application {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    seen: Mutex<Vec<Vec<u8>>>,
    answering: Mutex<Answering>,
    greeting: Mutex<Greeting>,
}

/// The answer that no test cares about.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Application {
    /// Listens, and answers every request with [`OK`].
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: Mutex::default(),
            answering: Mutex::new(saying(OK)),
            greeting: Mutex::new(Arc::new(|_| true)),
        });
        let shared = state.clone();
        // It ends with the process: nobody can be left behind who would call it.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let state = shared.clone();
                thread::spawn(move || connection(stream, &state));
            }
        });
        Self { address, state }
    }

    /// From now on answers this way; a probe is answered as ever.
    pub fn answers(&self, answering: Answering) {
        *lock(&self.state.answering) = answering;
    }

    /// From now on every request gets these bytes, and the connection goes on.
    pub fn says(&self, bytes: &[u8]) {
        self.answers(saying(bytes));
    }

    /// From now on every request gets these bytes, and the connection is closed in order.
    pub fn says_and_closes(&self, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.answers(Arc::new(move |stream, _| {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Both);
            false
        }));
    }

    /// From now on does this with a new connection first.
    pub fn greets(&self, greeting: Greeting) {
        *lock(&self.state.greeting) = greeting;
    }

    /// What reached it since the last call, without probes.
    pub fn seen(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *lock(&self.state.seen));
        let text = seen.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        text.filter(|request| !request.contains("/probe")).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn saying(bytes: &[u8]) -> Answering {
    let bytes = bytes.to_vec();
    Arc::new(move |stream, _| stream.write_all(&bytes).is_ok())
}

fn connection(mut stream: TcpStream, state: &State) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(PATIENCE * 4));
    let greeting = lock(&state.greeting).clone();
    if !greeting(&mut stream) {
        return;
    }
    let mut held = Vec::new();
    loop {
        if let Some(end) = request_end(&held) {
            let request: Vec<u8> = held.drain(..end).collect();
            let probe = request.starts_with(b"GET /probe ");
            lock(&state.seen).push(request.clone());
            let answering = if probe { saying(OK) } else { lock(&state.answering).clone() };
            if !answering(&mut stream, &request) {
                return;
            }
            continue;
        }
        let mut room = [0; 16 * 1024];
        match stream.read(&mut room) {
            Ok(n) if n > 0 => held.extend_from_slice(&room[..n]),
            _ => break,
        }
    }
    if !held.is_empty() {
        lock(&state.seen).push(held);
    }
}

/// Where the first request of `bytes` ends, once it is whole. Reads framing as a naive server does.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = head_end(bytes)?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned))
    };
    if field("transfer-encoding").is_some() {
        return chunked_end(&bytes[head..]).map(|body| head + body);
    }
    let length: usize = field("content-length").map_or(0, |length| length.parse().unwrap_or(0));
    (bytes.len() >= head + length).then_some(head + length)
}
