//! Interim (1xx) answers of an HTTP/1.1 upstream on their way to an HTTP/1.1 downstream.
//!
//! hyper reports them to a callback that must be `Send`, and cannot send them itself. So the callback
//! carries a number, the number finds the exchange in a table of this thread, and the bytes go into
//! the downstream's gather buffer, where nothing of the final answer stands yet.
//!
//! Invariant: an upstream that sends interim answers without end is cut off.

use http::Request;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::live::Conn;
use crate::sock::Io;

/// What one exchange does with interim answers.
#[derive(Debug, Clone)]
struct Interim {
    /// The HTTP/1.1 downstream they are written to; none where it speaks HTTP/2 or HTTP/1.0.
    downstream: Option<(Io, Rc<Conn>)>,
    /// The upstream that is cut off when it sends too many.
    upstream: Io,
    seen: u32,
    most: u32,
    go_on: Option<Rc<Continue>>,
}

/// Holds a request body back until the upstream asks for it (`Expect: 100-continue`).
#[derive(Debug, Default)]
pub struct Continue {
    waits: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Continue {
    /// The body waits from now on.
    pub fn hold(&self) {
        self.waits.set(true);
    }

    /// The body may flow.
    pub fn open(&self) {
        self.waits.set(false);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ready when the body may flow.
    pub fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waits.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The exchanges of a thread that wait for a final answer; places are used again.
#[derive(Debug, Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Place {
    /// Tells an exchange from the one that had the place before.
    turn: u64,
    interim: Option<Interim>,
}

impl Table {
    fn enter(&mut self, interim: Interim) -> (usize, u64) {
        let at = self.free.pop().unwrap_or(self.places.len());
        if at == self.places.len() {
            self.places.push(Place::default());
        }
        let Some(place) = self.places.get_mut(at) else { return (at, 0) };
        place.turn += 1;
        place.interim = Some(interim);
        (at, place.turn)
    }

    /// Counts one more interim answer, and gives what to do with it.
    fn count(&mut self, at: usize, turn: u64) -> Option<Interim> {
        let place = self.places.get_mut(at).filter(|place| place.turn == turn)?;
        let interim = place.interim.as_mut()?;
        interim.seen += 1;
        Some(interim.clone())
    }

    fn leave(&mut self, at: usize) -> Option<Interim> {
        self.free.push(at);
        self.places.get_mut(at)?.interim.take()
    }
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// An exchange's place in the table, for as long as it waits for its final answer.
#[derive(Debug)]
pub struct Listening(usize);

impl Listening {
    /// Whether the upstream was cut off for sending too many.
    pub fn is_flooded(&self) -> bool {
        TABLE.with(|table| {
            let table = table.borrow();
            let interim = table.places.get(self.0).and_then(|place| place.interim.as_ref());
            interim.is_some_and(|interim| interim.seen > interim.most)
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Dropped outside the borrow: its handles may be the last.
        let left = TABLE.try_with(|table| table.borrow_mut().leave(self.0));
        drop(left);
    }
}

/// Listens for interim answers to `request`, of which there may be `most`. Source of a bound: RFC 9110
/// §15.2 sets none; two or three are usual (100, 103, 102 keep-alives of WebDAV).
pub fn listen<B>(
    request: &mut Request<B>,
    downstream: Option<(Io, Rc<Conn>)>,
    upstream: Io,
    go_on: Option<Rc<Continue>>,
    most: u32,
) -> Listening {
    let interim = Interim { downstream, upstream, seen: 0, most, go_on };
    let (at, turn) = TABLE.with(|table| table.borrow_mut().enter(interim));
    hyper::ext::on_informational(request, move |answer| {
        let found = TABLE.with(|table| table.borrow_mut().count(at, turn));
        if let Some(interim) = found {
            interim.pass(answer.status(), answer.headers());
        }
    });
    Listening(at)
}

impl Interim {
    fn pass(&self, status: http::StatusCode, headers: &http::HeaderMap) {
        if self.seen > self.most {
            self.upstream.0.borrow_mut().poison();
            return;
        }
        if status == http::StatusCode::CONTINUE {
            self.go_on.iter().for_each(|go_on| go_on.open());
            return;
        }
        let Some((io, conn)) = &self.downstream else { return };
        io.0.borrow_mut().inject(&render(status, headers));
        conn.wake();
    }
}

fn render(status: http::StatusCode, headers: &http::HeaderMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Interim").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        if matches!(name.as_str(), "connection" | "transfer-encoding" | "content-length" | "upgrade") {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_answer_is_rendered_without_framing_fields() {
        let mut headers = http::HeaderMap::new();
        headers.insert("link", http::HeaderValue::from_static("</a.css>; rel=preload"));
        headers.insert("content-length", http::HeaderValue::from_static("5"));
        let bytes = render(http::StatusCode::EARLY_HINTS, &headers);
        assert_eq!(bytes, b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
    }
}
