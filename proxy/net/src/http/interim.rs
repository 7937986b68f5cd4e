//! Interim (1xx) answers of an HTTP/1.1 upstream on their way to an HTTP/1.1 downstream.
//!
//! hyper reports them to a callback that must be `Send`, and cannot send them itself. So the callback
//! carries a number, the number finds the exchange in a table of this thread, and the bytes go into
//! the downstream's gather buffer, where nothing of the final answer stands yet.
//!
//! Invariant: an upstream that sends interim answers without end is cut off.

use http::Request;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::live::Conn;
use crate::sock::Io;

/// What one exchange does with interim answers.
#[derive(Debug)]
pub struct Interim {
    /// The HTTP/1.1 downstream they are written to; none where it speaks HTTP/2 or HTTP/1.0.
    pub downstream: Option<(Io, Rc<Conn>)>,
    /// The upstream that is cut off when it sends too many.
    pub upstream: Io,
    seen: Cell<u32>,
    most: u32,
    go_on: Rc<Continue>,
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

thread_local! {
    static TABLE: RefCell<HashMap<u64, Rc<Interim>>> = RefCell::new(HashMap::new());
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// An exchange's place in the table, for as long as it waits for its final answer.
#[derive(Debug)]
pub struct Listening(u64);

impl Drop for Listening {
    fn drop(&mut self) {
        TABLE.with(|table| table.borrow_mut().remove(&self.0));
    }
}

impl Listening {
    /// Whether the upstream was cut off for sending too many.
    pub fn is_flooded(&self) -> bool {
        TABLE.with(|table| {
            table.borrow().get(&self.0).is_some_and(|interim| interim.seen.get() > interim.most)
        })
    }
}

/// Listens for interim answers to `request`, of which there may be `most`. Source of a bound: RFC 9110
/// §15.2 sets none; two or three are usual (100, 103, 102 keep-alives of WebDAV).
pub fn listen<B>(
    request: &mut Request<B>,
    downstream: Option<(Io, Rc<Conn>)>,
    upstream: Io,
    go_on: Rc<Continue>,
    most: u32,
) -> Listening {
    let id = NEXT.with(|next| {
        let id = next.get();
        next.set(id.wrapping_add(1));
        id
    });
    let interim = Rc::new(Interim { downstream, upstream, seen: Cell::new(0), most, go_on });
    TABLE.with(|table| table.borrow_mut().insert(id, interim));
    hyper::ext::on_informational(request, move |answer| {
        let found = TABLE.with(|table| table.borrow().get(&id).cloned());
        if let Some(interim) = found {
            interim.pass(answer.status(), answer.headers());
        }
    });
    Listening(id)
}

impl Interim {
    fn pass(&self, status: http::StatusCode, headers: &http::HeaderMap) {
        let seen = self.seen.get() + 1;
        self.seen.set(seen);
        if seen > self.most {
            self.upstream.0.borrow_mut().poison();
            return;
        }
        if status == http::StatusCode::CONTINUE {
            self.go_on.open();
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
