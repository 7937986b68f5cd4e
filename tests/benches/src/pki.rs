//! Certificates for the peers that take them from files: one root, one leaf for each side.
//! Before this: nothing. After it: `peer` names the files in Envoy's and HAProxy's configuration.
//!
//! Invariant: made anew for each run, P-256 like Weft's own, and never used outside loopback.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The side of the pair a certificate belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// The sidecar beside the client: client in the TLS between the two.
    A,
    /// The sidecar beside the server.
    B,
}

impl Side {
    /// The SPIFFE identity in the certificate.
    pub(crate) fn spiffe(self) -> &'static str {
        match self {
            Self::A => "spiffe://bench.local/ns/bench/sa/client",
            Self::B => "spiffe://bench.local/ns/bench/sa/server",
        }
    }

    /// The common name and DNS name, for peers that cannot match a URI.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "client.bench",
            Self::B => "server.bench",
        }
    }

    fn stem(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A folder with `ca.pem`, and for each side `.crt`, `.key` and both in one `.pem`.
pub(crate) struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// Makes the root and both leaves in `folder`.
    ///
    /// # Errors
    /// A key or certificate cannot be made or written.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, "weft-bench root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        for side in [Side::A, Side::B] {
            leaf(folder, side, &issuer)?;
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The root certificate's file.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A side's certificate file.
    pub(crate) fn certificate(&self, side: Side) -> PathBuf {
        self.folder.join(format!("{}.crt", side.stem()))
    }

    /// A side's key file.
    pub(crate) fn key(&self, side: Side) -> PathBuf {
        self.folder.join(format!("{}.key", side.stem()))
    }

    /// A side's certificate and key in one file.
    pub(crate) fn both(&self, side: Side) -> PathBuf {
        self.folder.join(format!("{}.pem", side.stem()))
    }
}

fn leaf(folder: &Path, side: Side, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
    let mut params = CertificateParams::new(vec![side.name().to_owned()])?;
    params.subject_alt_names.push(SanType::URI(side.spiffe().try_into()?));
    params.distinguished_name.push(DnType::CommonName, side.name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?.pem();
    let file = |kind: &str| folder.join(format!("{}.{kind}", side.stem()));
    fs::write(file("crt"), &certificate)?;
    fs::write(file("key"), key.serialize_pem())?;
    fs::write(file("pem"), certificate + &key.serialize_pem())?;
    Ok(())
}
