//! Writing tar archives (ustar): files and folders, root's, without a time.
//!
//! Source: POSIX.1-2017, pax, "ustar Interchange Format".
//!
//! Invariant: an entry is written whole or the archive is of no use; nothing is padded with old memory.

use std::io::{self, Write};

/// Everything is written in blocks of this size.
const BLOCK: usize = 512;
/// A name longer than this needs an extension that nothing here needs.
const LONGEST_NAME: usize = 100;

/// An archive being written.
pub(super) struct Archive<W> {
    to: W,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to }
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        self.head(path, content.len(), mode, b'0')?;
        self.to.write_all(content)?;
        self.to.write_all(&[0; BLOCK][..content.len().next_multiple_of(BLOCK) - content.len()])
    }

    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.head(&format!("{path}/"), 0, mode, b'5')
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.to.write_all(&[0; BLOCK * 2])
    }

    fn head(&mut self, path: &str, size: usize, mode: u32, kind: u8) -> io::Result<()> {
        if path.len() > LONGEST_NAME {
            return Err(io::Error::other(format!("{path}: longer than {LONGEST_NAME} bytes")));
        }
        let fields = [
            (path.to_owned(), LONGEST_NAME),
            (format!("{mode:07o}"), 8),
            (format!("{:07o}", 0), 8),
            (format!("{:07o}", 0), 8),
            (format!("{size:011o}"), 12),
            (format!("{:011o}", 0), 12),
        ];
        let mut block = Vec::with_capacity(BLOCK);
        for (text, width) in fields {
            let end = block.len() + width;
            block.extend_from_slice(text.as_bytes());
            block.resize(end, 0);
        }
        // The sum is taken with its own field blank.
        let sum_at = block.len();
        block.extend_from_slice(b"        ");
        block.push(kind);
        block.resize(257, 0);
        block.extend_from_slice(b"ustar\x0000");
        block.resize(BLOCK, 0);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        for (at, byte) in (sum_at..).zip(format!("{sum:06o}\0").bytes()) {
            if let Some(place) = block.get_mut(at) {
                *place = byte;
            }
        }
        self.to.write_all(&block)
    }
}
