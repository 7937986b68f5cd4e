//! Where the demo lives: a block of loopback addresses and a folder of manifests.
//!
//! Every pod and service has an address of its own in 127.0.0.0/8, which needs no set-up and no root.
//!
//! Invariant: two demos on one machine do not meet: each takes a block that nobody listens in.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::rand::{GetRandomFlags, getrandom};

/// Port of every service and pod. Source: any port above 1023 needs no root.
pub(crate) const PORT: u16 = 8080;

/// One demo's block of addresses, `127.x.y.0/24`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block(u8, u8);

impl Block {
    /// A block in which nobody listens.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let start = std::process::id();
        (0..200u32)
            .map(|step| {
                let n = start.wrapping_add(step * 7919);
                Block(20 + u8::try_from(n / 256 % 200).unwrap_or(0), u8::try_from(n % 256).unwrap_or(0))
            })
            .find(|block| TcpListener::bind(block.at(10)).is_ok())
            .context("no free block of loopback addresses; is 127.0.0.0/8 on the loopback interface?")
    }

    /// Host `host` of the block.
    pub(crate) fn ip(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, self.1, host)
    }

    /// Host `host` of the block, at the demo's port.
    pub(crate) fn at(self, host: u8) -> SocketAddr {
        SocketAddr::from((self.ip(host), PORT))
    }

    /// Writes the manifests of the demo into `folder`, with this block's addresses.
    pub(crate) fn write_manifests(self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(folder)?;
        let mut written = Vec::new();
        for manifest in MANIFESTS {
            written.push(self.write_manifest(folder, manifest)?);
        }
        Ok(written)
    }

    /// Writes one manifest, with this block's addresses.
    pub(crate) fn write_manifest(self, folder: &Path, (name, text): (&str, &str)) -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, self.fill(text)).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Puts this block's addresses into a manifest.
    pub(crate) fn fill(self, text: &str) -> String {
        text.replace("127.0.0.", &format!("127.{}.{}.", self.0, self.1))
    }
}

/// A number that nobody can guess.
pub(crate) fn random() -> anyhow::Result<u128> {
    let mut bytes = [0; 16];
    let filled =
        getrandom(&mut bytes, GetRandomFlags::empty()).context("asking the kernel for random bytes")?;
    // Source: getrandom(2): up to 256 bytes come whole.
    anyhow::ensure!(filled == bytes.len(), "the kernel gave {filled} random bytes");
    Ok(u128::from_ne_bytes(bytes))
}

/// The manifests as a user would write them.
pub(crate) const MANIFESTS: [(&str, &str); 5] = [
    ("mesh.yaml", include_str!("manifests/mesh.yaml")),
    ("catalog.yaml", include_str!("manifests/catalog.yaml")),
    ("catalog-route.yaml", include_str!("manifests/catalog-route.yaml")),
    ("cart.yaml", include_str!("manifests/cart.yaml")),
    ("payments.yaml", include_str!("manifests/payments.yaml")),
];

/// The policy that sends traces to the Jaeger beside the demo.
pub(crate) const TO_JAEGER: (&str, &str) = ("telemetry.yaml", include_str!("manifests/telemetry.yaml"));

/// The policy that denies the shop the catalog.
pub(crate) const DENY: (&str, &str) = ("deny-shop.yaml", include_str!("manifests/deny-shop.yaml"));
