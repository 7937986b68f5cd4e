//! TLS against tokio-rustls as the other side, and the sidecars' own two sides against each other.

mod identities;
mod records;

use super::*;
use crate::sock::{Io, Sock};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use weft_proxy_core::Identity;

pub(crate) const SHOP: &str = "spiffe://weft.test/ns/shop/sa/shop";
pub(crate) const CART: &str = "spiffe://weft.test/ns/shop/sa/cart";

/// 2026-06-01; the tests' clock starts here.
pub(crate) const NOW: u64 = 1_780_272_000;

/// A clock that only the test moves.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW)))
    }
    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// A certificate authority of one trust domain.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
}

/// What a leaf says.
pub(crate) struct Leaf<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) life: u64,
    pub(crate) ca: bool,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own, as every authority has.
        let name = format!("{:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(crate) fn leaf(&self, leaf: &Leaf<'_>) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        for uri in leaf.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        if leaf.ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let day = rcgen::date_time_ymd(2026, 6, 1);
        params.not_before = day - Duration::from_secs(3600);
        params.not_after = day + Duration::from_secs(leaf.life);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A generation for `uri`, good for a day, that trusts this authority.
    pub(crate) fn generation(&self, uri: &str, clock: &Arc<Clock>) -> Generation {
        self.generation_of(&Leaf { uris: &[uri], life: 86_400, ca: false }, clock)
    }

    pub(crate) fn generation_of(&self, leaf: &Leaf<'_>, clock: &Arc<Clock>) -> Generation {
        let (chain, key) = self.leaf(leaf);
        Generation::with_clock(chain, key, std::slice::from_ref(&self.root), Arc::clone(clock) as _).unwrap()
    }
}

pub(crate) fn identity(text: &str) -> Identity {
    Identity::parse(text).unwrap()
}

pub(crate) fn dialer(generation: Generation) -> Dialer {
    let shared = Arc::new(TlsIdentity::empty());
    shared.set(generation);
    Dialer::new(shared)
}

/// Two ends of a loopback connection, and the address dialled.
pub(crate) async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0, address)
}

/// Both our sides, connected: client, server.
pub(crate) async fn both() -> (Sock, Sock) {
    let (ca, clock) = (Ca::new(), Clock::new());
    let server = ca.generation(CART, &clock);
    let dialer = dialer(ca.generation(SHOP, &clock));
    let (a, b, address) = pair().await;
    let expected = identity(CART);
    let (a, b) = tokio::join!(
        dialer.connect(a, address, &expected, weft_proxy_core::Hop::Tcp),
        accept(b, &[], &server)
    );
    // A byte from the server, so that the client has also taken the session ticket that came before.
    let (mut a, b) = (a.unwrap().0, Io::new(b.unwrap().0));
    tokio::io::AsyncWriteExt::write_all(&mut b.clone(), b"!").await.unwrap();
    flushed(&b).await;
    let mut byte = [0];
    std::future::poll_fn(|cx| a.poll_read(cx, &mut tokio::io::ReadBuf::new(&mut byte))).await.unwrap();
    assert_eq!(&byte, b"!");
    (a, b.into_sock().unwrap())
}

/// Sends what an [`Io`] has gathered.
pub(crate) async fn flushed(io: &Io) {
    std::future::poll_fn(|cx| io.0.borrow_mut().poll_flush_now(cx)).await.unwrap();
}
