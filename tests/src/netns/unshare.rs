//! The one unsafe call of the tests: leaving namespaces.
//!
//! JUSTIFICATION: rustix marks `unshare` unsafe for the sake of one flag, which lets threads differ in
//! their file descriptors. There is no other way into a fresh network namespace.
//!
//! Invariant: that flag never reaches the call.

use std::io;

use rustix::thread::UnshareFlags;

/// Leaves the calling thread's namespaces of the given kinds for fresh ones. A user namespace needs a
/// process with one thread; a process-id namespace takes hold with the next child.
///
/// # Errors
/// What the kernel says: `EPERM` or `ENOSPC` where it forbids it; `EINVAL` for file descriptors.
pub fn leave(kinds: UnshareFlags) -> io::Result<()> {
    if kinds.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    #[expect(unsafe_code, reason = "unshare has no safe form; see this file's head")]
    // SAFETY: the call is unsafe only when it parts the table of file descriptors, excluded above.
    unsafe { rustix::thread::unshare_unsafe(kinds) }.map_err(io::Error::from)
}
