//! Whether a pair does what its figures stand for: right answers, TLS 1.3 in between, no strangers.
//! Before this: `peer` starts a pair with a tap in the middle. After it: `measure`, without the tap.
//!
//! Invariant: a peer that fails here is not measured. A refusal counts only when, where the pair takes certificates from
//! files, the same bytes with the right certificate are served.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, Stream};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::Serialize;

use crate::hello::{self, Hellos};
use crate::load;
use crate::message::{ECHO, GRPC_PATH, HTTP_BODY, HTTP_PATH, HTTP_REQUEST};
use crate::peer::{Job, Peer};
use crate::pki::{Pki, Side};
use crate::plan::Shape;
use crate::tap::Record;

/// What was seen between the two sidecars.
#[derive(Serialize, Clone)]
pub(crate) struct Seen {
    /// Cipher, key exchange and ALPN in one line.
    pub(crate) tls: String,
    /// Whether a later connection resumed an earlier session.
    pub(crate) resumed: bool,
}

/// Starts the pair with a tap and looks; none for peers without TLS.
///
/// # Errors
/// An answer is wrong, something crosses in the clear, or a stranger is served.
pub(crate) fn check(peer: &dyn Peer, job: &Job<'_>) -> Result<Option<Seen>> {
    let mut pair = peer.start(job)?;
    pair.wait_until_right(job.shape)?;
    for _ in 0..EXCHANGES {
        load::once(job.shape, pair.call)?;
    }
    if !peer.has_tls() {
        return Ok(None);
    }
    let tap = pair.tap.as_ref().context("there is no tap")?;
    let hop = pair.hop.context("the pair does not say where B listens")?;
    let seen = wire(&tap.records())?;
    let alpn: Vec<Vec<u8>> = seen.0.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    strangers(peer, job, hop, &alpn)?;
    let names = if seen.0.alpn.is_empty() { "none".into() } else { seen.0.alpn.join(" ") };
    let tls = format!("TLS 1.3, {}, {}, ALPN {names}", seen.0.cipher, seen.0.group);
    Ok(Some(Seen { tls, resumed: seen.1 }))
}

/// Reads the handshakes in the record and looks for clear text.
fn wire(records: &[Record]) -> Result<(Hellos, bool)> {
    // A connection that was opened and given up before B was ready has no answer.
    let answered: Vec<&Record> = records.iter().filter(|record| !record.down.is_empty()).collect();
    let mut first = None;
    let mut resumed = false;
    for record in &answered {
        for marker in [HTTP_PATH.as_bytes(), GRPC_PATH.as_bytes(), &HTTP_BODY[1..17], b"HTTP/1.1 ", b"PRI * "]
        {
            let shown = String::from_utf8_lossy(marker).into_owned();
            ensure!(memmem::find(&record.up, marker).is_none(), "{shown:?} crosses in the clear");
            ensure!(memmem::find(&record.down, marker).is_none(), "{shown:?} crosses back in the clear");
        }
        let hellos = hello::read(&record.up, &record.down)?;
        resumed |= hellos.resumed;
        first.get_or_insert(hellos);
    }
    let first = first.context("nothing crossed the tap: A does not reach B through it")?;
    Ok((first, resumed))
}

fn strangers(peer: &dyn Peer, job: &Job<'_>, hop: SocketAddr, alpn: &[Vec<u8>]) -> Result<()> {
    if peer.takes_our_certificates() {
        ensure!(served(job.shape, hop, alpn, Some(job.pki))?, "B does not serve a client with a certificate");
    }
    ensure!(!served(job.shape, hop, alpn, None)?, "B serves a client without certificate");
    ensure!(load::once(job.shape, hop).is_err(), "B serves clear text");
    Ok(())
}

/// Whether B answers with at least one byte inside TLS.
fn served(shape: Shape, hop: SocketAddr, alpn: &[Vec<u8>], pki: Option<&Pki>) -> Result<bool> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match pki {
        Some(pki) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(pki.certificate(Side::A))?],
            PrivateKeyDer::from_pem_file(pki.key(Side::A))?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.to_vec();
    let mut socket = TcpStream::connect(hop)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut session = ClientConnection::new(Arc::new(config), ServerName::try_from(Side::B.name())?)?;
    let mut stream = Stream::new(&mut session, &mut socket);
    let request: &[u8] = match shape {
        Shape::Http => &HTTP_REQUEST,
        Shape::Grpc => H2_PREFACE,
        Shape::Tcp => &ECHO,
    };
    let exchange = stream.write_all(request).and_then(|()| stream.read(&mut [0; 256]));
    match exchange {
        Ok(read) => Ok(read > 0),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
        {
            bail!("B neither answers nor refuses within {PATIENCE:?}")
        }
        Err(_alert_or_reset) => Ok(false),
    }
}

/// Takes any server: the probe asks what B does, not who it is.
#[derive(Debug)]
pub(crate) struct AnyServer(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("older than TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Exchanges after the first right one, each on a connection of its own.
const EXCHANGES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(5);
/// Source: RFC 9113 3.4, the preface and an empty SETTINGS frame.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_on_the_wire_is_found() {
        let clear = Record { up: HTTP_REQUEST.clone(), down: b"HTTP/1.1 200 OK\r\n".to_vec() };
        assert!(wire(&[clear]).is_err());
        assert!(wire(&[]).is_err(), "an unused tap passes");
        assert!(wire(&[Record::default()]).is_err(), "an empty connection passes");
    }
}
