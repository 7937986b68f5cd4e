//! Where one mesh lives: a folder, and a block of loopback addresses.
//!
//! Invariant: two meshes at a time do not meet, of one test process or of several: whoever holds the
//! claim's socket has the block.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::manifest::Pod;

/// The place of one mesh.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    program: PathBuf,
    block: (u8, u8),
    _claim: TcpListener,
}

impl Place {
    pub(super) fn new(program: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = std::process::id().wrapping_mul(61).wrapping_add(number);
        let (block, claim) = (0..5_000)
            .find_map(|step| claim(start.wrapping_add(step * 7)))
            .expect("a free block of loopback addresses");
        let folder = std::env::temp_dir().join(format!("weft-mesh-{}-{number}", std::process::id()));
        std::fs::create_dir_all(folder.join("manifests")).unwrap();
        Self { folder, program: program.into(), block, _claim: claim }
    }

    /// Host `host` of the block.
    pub(super) fn ip(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, self.block.0, self.block.1, host).into()
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join("manifests").join(name)
    }

    /// Saves as editors do: another name, then a rename.
    pub(super) fn save(&self, name: &str, text: &str) {
        let aside = self.manifest(&format!(".{name}.swp"));
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(&aside, self.manifest(name)).unwrap();
    }

    /// A join token for every pod.
    pub(super) fn tokens(&self, pods: &[Pod]) {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path("tokens.yaml"))
            .unwrap();
        for pod in pods {
            writeln!(file, "- {{token: {}, workload: test/{}, uses: 1000}}", pod.token(), pod.name).unwrap();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What a failing test wants to read is in its panic; a folder that stays is no failure.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Takes the block that a number stands for, if nobody has it.
fn claim(number: u32) -> Option<((u8, u8), TcpListener)> {
    let [_, _, high, low] = number.to_be_bytes();
    let block = (20 + high % 200, low);
    let listener = TcpListener::bind((Ipv4Addr::new(127, block.0, block.1, 254), CLAIM)).ok()?;
    Some((block, listener))
}

/// The port on which a block is claimed, on an address that nothing else uses.
const CLAIM: u16 = 19_999;
