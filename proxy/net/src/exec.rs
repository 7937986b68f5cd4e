//! How tasks start on a data thread, and the executor hyper's HTTP/2 is given.
//!
//! Invariant: a future is spawned as it is; no `async` block around it holds it a second time.

use crate::drive::Drive;
use crate::http::sever::Severable;
use crate::sock::Io;
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

/// Starts a task on this thread.
///
/// # Panics
/// Outside a [`tokio::runtime::LocalRuntime`] (a mistake of wiring, never of input).
pub fn spawn<F>(future: F)
where
    F: Future + 'static,
    F::Output: 'static,
{
    drop(tokio::task::spawn_local(future));
}

/// Executor for hyper's HTTP/2.
///
/// hyper's HTTP/2 client hands the future that drives the connection to its executor first, before any
/// stream's; that one is wrapped in [`Drive`], so what it gathers is sent. A server's connection is driven by
/// whoever polls it: its executor starts stream tasks only.
#[derive(Clone)]
pub struct LocalExec {
    /// On the client's side: the connection, until its future came.
    first: Option<Rc<Cell<Option<Io>>>>,
}

impl LocalExec {
    /// For an HTTP/2 client connection over `io`.
    #[must_use]
    pub fn client(io: Io) -> Self {
        Self { first: Some(Rc::new(Cell::new(Some(io)))) }
    }

    /// For an HTTP/2 server connection, whose owner polls it within [`Drive`].
    #[must_use]
    pub fn server() -> Self {
        Self { first: None }
    }
}

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        match self.first.as_ref().map(|first| first.take()) {
            Some(Some(io)) => spawn(Drive::new(future, io)),
            Some(None) => spawn(future),
            None => spawn(Severable::new(future)),
        }
    }
}
