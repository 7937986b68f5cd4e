//! Who is at the other end of a connection: an address, and an identity if a certificate proved one.
//!
//! Invariant: an identity here was verified up to a root of the mesh, names this trust domain and
//! is the only URI name of its certificate.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;
use weft_proto::names::SpiffeId;

use crate::authority;

/// The peer of one connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it calls from.
    pub address: SocketAddr,
    /// Who it is; absent: it showed no certificate.
    pub identity: Option<Proven>,
}

/// An identity that a certificate proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The identity.
    pub id: SpiffeId,
    /// End of the certificate's life, seconds since 1970.
    pub not_after: u64,
}

/// Reads the identity of a leaf whose chain was verified.
///
/// # Errors
/// Not exactly one URI name, not an identity of the mesh, or of another trust domain.
pub fn prove(leaf: &CertificateDer<'_>, trust_domain: &str) -> Result<Proven, String> {
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let mut names = parsed.valid_uri_names();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err("the certificate has not exactly one URI name".to_owned());
    };
    let id: SpiffeId = name.parse().map_err(|error: weft_proto::names::BadName| error.to_string())?;
    if id.trust_domain != trust_domain {
        return Err(format!("{id} is not of trust domain {trust_domain}"));
    }
    let not_after = authority::not_after(leaf).ok_or("the certificate's end cannot be read")?;
    Ok(Proven { id, not_after })
}
