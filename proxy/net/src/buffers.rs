//! Byte areas that belong to the thread and not to a connection.
//!
//! A connection holds bytes only while they wait: a [`Rest`] takes its buffer from the thread's pool when the
//! first byte arrives and gives it back with the last. What is needed only within one call (a read, an
//! encryption) happens in a scratch area of the thread.
//!
//! Invariant: an idle connection owns no buffer.
//! Invariant: the pool never holds more than [`POOL_BYTES`].
//! Invariant: a scratch area in use is never handed out twice; nested use costs an allocation, not a panic.

use std::cell::{Cell, RefCell};

/// Most bytes the pool of one thread keeps for later.
/// Source: sixteen full gather buffers; more than that waits only when many peers are slow at once.
pub const POOL_BYTES: usize = 1024 * 1024;

/// Largest single buffer the pool takes back.
/// Source: a gather buffer at its limit (64 KiB) may have grown to the next power of two.
pub const POOL_BUFFER: usize = 128 * 1024;

/// Size of a scratch area.
/// Source: 15 full TLS records and more than one read of a loopback socket under bulk load; pages that are
/// never touched cost no memory.
pub const SCRATCH: usize = 256 * 1024;

/// Capacity of a new buffer.
/// Source: holds the head of nearly every HTTP message; grows by doubling.
const FIRST: usize = 4096;

/// Buffers that wait for their next use, and the sum of their capacities.
struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), bytes: 0 }) };
    static OPEN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SEAL: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static PLAIN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes an empty buffer from the thread's pool.
fn take() -> Vec<u8> {
    let pooled = POOL.try_with(|pool| {
        let mut pool = pool.try_borrow_mut().ok()?;
        let buffer = pool.free.pop()?;
        pool.bytes -= buffer.capacity();
        Some(buffer)
    });
    pooled.ok().flatten().unwrap_or_else(|| Vec::with_capacity(FIRST))
}

/// Gives a buffer back, or frees it when the pool is full.
fn give(mut buffer: Vec<u8>) {
    let size = buffer.capacity();
    if size == 0 || size > POOL_BUFFER {
        return;
    }
    buffer.clear();
    let _ = POOL.try_with(move |pool| {
        if let Ok(mut pool) = pool.try_borrow_mut()
            && pool.bytes + size <= POOL_BYTES
        {
            pool.bytes += size;
            pool.free.push(buffer);
        }
    });
}

/// Which scratch area of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// Ciphertext as it came from the network.
    Open,
    /// Ciphertext on its way out.
    Seal,
    /// Plaintext between two sockets, or between a socket and hyper.
    Plain,
}

/// Lends the scratch area to `work`; its content is whatever the last user left.
pub(crate) fn with_scratch<R>(area: Area, work: impl FnOnce(&mut [u8]) -> R) -> R {
    let key = match area {
        Area::Open => &OPEN,
        Area::Seal => &SEAL,
        Area::Plain => &PLAIN,
    };
    let mut bytes = key.try_with(Cell::take).unwrap_or_default();
    if bytes.is_empty() {
        bytes = vec![0; SCRATCH];
    }
    let result = work(&mut bytes);
    let _ = key.try_with(|cell| cell.set(bytes));
    result
}

/// Bytes that wait, read from the front; owns no memory while empty.
#[derive(Debug, Default)]
pub struct Rest {
    bytes: Vec<u8>,
    at: usize,
}

impl Rest {
    /// Nothing waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), at: 0 }
    }

    /// The bytes that wait.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The bytes that wait, to be changed where they are.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.at..).unwrap_or_default()
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes behind those that wait.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = take();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts bytes before those that wait.
    pub fn push_front(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            return self.push(bytes);
        }
        if bytes.is_empty() {
            return;
        }
        let mut joined = take();
        joined.extend_from_slice(bytes);
        joined.extend_from_slice(self.as_slice());
        give(std::mem::replace(&mut self.bytes, joined));
        self.at = 0;
    }

    /// Forgets the first `n` bytes; gives the buffer back when nothing is left.
    pub fn advance(&mut self, n: usize) {
        self.at = self.at.saturating_add(n);
        if self.at >= self.bytes.len() {
            self.clear();
        }
    }

    /// Forgets everything and gives the buffer back.
    pub fn clear(&mut self) {
        self.at = 0;
        give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

/// A place that takes bytes which were read: tokio's buffer, hyper's buffer, a part of a scratch area.
pub(crate) trait Room {
    /// How many bytes fit.
    fn room(&self) -> usize;
    /// Takes `bytes`, which fit.
    fn put(&mut self, bytes: &[u8]);
}

impl Room for tokio::io::ReadBuf<'_> {
    fn room(&self) -> usize {
        self.remaining()
    }
    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

impl Room for hyper::rt::ReadBufCursor<'_> {
    fn room(&self) -> usize {
        self.remaining()
    }
    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_gives_back_in_order_and_owns_nothing_when_empty() {
        let mut rest = Rest::new();
        rest.push(b"world");
        rest.push_front(b"hello ");
        assert_eq!(rest.as_slice(), b"hello world");
        rest.advance(6);
        assert_eq!(rest.as_slice(), b"world");
        rest.push_front(b"big ");
        assert_eq!(rest.as_slice(), b"big world");
        rest.advance(9);
        assert!(rest.is_empty());
        assert_eq!(rest.bytes.capacity(), 0);
    }

    #[test]
    fn pool_stays_within_its_limit() {
        for _ in 0..100 {
            give(Vec::with_capacity(POOL_BUFFER));
        }
        give(Vec::with_capacity(2 * POOL_BUFFER));
        let held = POOL.with(|p| p.borrow().bytes);
        assert!(held <= POOL_BYTES && held > 0, "{held}");
        let again = take();
        assert!(again.capacity() >= POOL_BUFFER);
    }

    #[test]
    fn nested_scratch_is_a_different_area() {
        with_scratch(Area::Plain, |outer| {
            outer[0] = 1;
            with_scratch(Area::Plain, |inner| inner[0] = 2);
            assert_eq!(outer[0], 1);
        });
    }
}
