//! Whom the API server's front proxy says it speaks for, and whether it is the front proxy at all.
//!
//! Every API server tells its aggregated ones in the ConfigMap `extension-apiserver-authentication` of
//! `kube-system` who signs its proxy's certificate, by which names, and in which header fields users stand.
//!
//! Invariant: no header field counts unless the connection's certificate is proven by that ConfigMap as it is
//! now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::offered::Shown;

/// Where the API server tells it. Source: k8s.io/apiserver, "extension-apiserver-authentication".
const NAMESPACE: &str = "kube-system";
/// The ConfigMap.
const NAME: &str = "extension-apiserver-authentication";
/// Pause after the watch ended. Source: as for the Lease.
const PAUSE: Duration = Duration::from_secs(2);
/// Groups and extra fields of one user that are passed on. Source: Weft's own; directories have hundreds.
const MANY: usize = 1_024;

/// A user of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// The front proxy, as far as known.
#[derive(Debug, Default)]
pub(super) struct Proxy(ArcSwapOption<Told>);

/// What the API server told.
#[derive(Debug)]
struct Told {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Common names it may have; empty: any.
    names: Vec<String>,
    user: Vec<String>,
    uid: Vec<String>,
    group: Vec<String>,
    extra: Vec<String>,
}

/// Follows the ConfigMap for as long as the process lives.
pub(super) async fn follow(proxy: Arc<Proxy>, client: Client) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    loop {
        let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut seen = watcher(api.clone(), only).default_backoff().applied_objects().boxed();
        while let Some(seen) = seen.next().await {
            match seen.map_err(|error| error.to_string()).and_then(|map| Told::read(&map)) {
                Ok(told) => proxy.0.store(Some(Arc::new(told))),
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the ConfigMap {NAME} of {NAMESPACE} does not tell who the front proxy is"
                    );
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Proxy {
    /// The user of a request.
    ///
    /// # Errors
    /// Whoever called is not the front proxy, or names nobody; in words.
    pub(super) fn user(&self, parts: &Parts) -> Result<User, String> {
        let told = self.0.load_full();
        let told = told.ok_or_else(|| {
            format!(
                "the API server's front proxy is not known: may the control plane read {NAME} in {NAMESPACE}?"
            )
        })?;
        let shown = parts.extensions.get::<Shown>().cloned().unwrap_or_default();
        told.prove(&shown.0, UnixTime::now())?;
        told.named(&parts.headers).ok_or_else(|| "the front proxy names no user".to_owned())
    }
}

impl Told {
    fn read(map: &ConfigMap) -> Result<Self, String> {
        let entry = |name: &str| map.data.as_ref().and_then(|data| data.get(name));
        let list = |name: &str, default: &[&str]| -> Result<Vec<String>, String> {
            let usual = || default.iter().map(|one| (*one).to_owned()).collect();
            let Some(text) = entry(name) else { return Ok(usual()) };
            serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))
        };
        let authority = entry("requestheader-client-ca-file");
        let authority = authority.ok_or("the API server has no --requestheader-client-ca-file")?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let root = root.map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
            roots.add(root).map_err(|error| format!("requestheader-client-ca-file: {error}"))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self {
            verifier: verifier.map_err(|error| format!("requestheader-client-ca-file: {error}"))?,
            names: list("requestheader-allowed-names", &[])?,
            user: list("requestheader-username-headers", &["X-Remote-User"])?,
            uid: list("requestheader-uid-headers", &["X-Remote-Uid"])?,
            group: list("requestheader-group-headers", &["X-Remote-Group"])?,
            extra: list("requestheader-extra-headers-prefix", &["X-Remote-Extra-"])?,
        })
    }

    fn prove(&self, shown: &[CertificateDer<'static>], now: UnixTime) -> Result<(), String> {
        let (leaf, above) =
            shown.split_first().ok_or("only the API server's front proxy may ask, with its certificate")?;
        let proven = self.verifier.verify_client_cert(leaf, above, now);
        proven.map_err(|error| format!("the caller is not the API server's front proxy: {error}"))?;
        let parsed = X509Certificate::from_der(leaf).map(|(_, leaf)| leaf);
        let parsed = parsed.map_err(|error| format!("the caller's certificate cannot be read: {error}"))?;
        let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        if self.names.is_empty() || names.any(|name| self.names.iter().any(|allowed| allowed == name)) {
            return Ok(());
        }
        Err("the caller's certificate is not that of the API server's front proxy".to_owned())
    }

    fn named(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[String]| {
            let found = names.iter().find_map(|name| headers.get(name.as_str()));
            found.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let name = first(&self.user);
        if name.is_empty() {
            return None;
        }
        let groups = self.group.iter().flat_map(|name| headers.get_all(name.as_str()));
        let groups = groups.filter_map(|value| value.to_str().ok()).map(str::to_owned);
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (field, value) in headers.iter().take(MANY) {
            let prefix = self
                .extra
                .iter()
                .find_map(|prefix| field.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
            if let (Some(key), Ok(value)) = (prefix, value.to_str()) {
                extra.entry(unescaped(key)).or_default().push(value.to_owned());
            }
        }
        Some(User { name, uid: first(&self.uid), groups: groups.take(MANY).collect(), extra })
    }
}

/// A key as it was before it became part of a field's name.
///
/// Source: k8s.io/apiserver's request header authenticator, which percent-decodes keys.
fn unescaped(key: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), key.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    pub(crate) struct Ca {
        pub(crate) pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Ca {
        pub(crate) fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let root = params.self_signed(&key).unwrap();
            let der: CertificateDer<'static> = root.der().clone();
            Self { pem: root.pem(), issuer: Issuer::from_ca_cert_der(&der, key).unwrap() }
        }

        pub(crate) fn leaf(&self, name: &str) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }
    }

    pub(crate) fn proxy(ca: &Ca, names: &str) -> Proxy {
        let data = [
            ("requestheader-client-ca-file", ca.pem.as_str()),
            ("requestheader-allowed-names", names),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ];
        let data = data.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let map = ConfigMap { data: Some(BTreeMap::from(data)), ..ConfigMap::default() };
        Proxy(ArcSwapOption::from_pointee(Told::read(&map).unwrap()))
    }

    fn parts(shown: &[CertificateDer<'static>], headers: &[(&str, &str)]) -> Parts {
        let mut request = axum::http::Request::post("/").extension(Shown(Arc::from(shown)));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const ANNA: [(&str, &str); 5] = [
        ("x-remote-user", "anna"),
        ("x-remote-group", "operators"),
        ("x-remote-group", "system:authenticated"),
        ("x-remote-extra-acme.com%2fproject", "weft"),
        ("x-unrelated", "1"),
    ];

    #[test]
    fn the_front_proxys_user_is_read_with_groups_and_extras() {
        let ca = Ca::new();
        let user = proxy(&ca, r#"["front-proxy"]"#).user(&parts(&[ca.leaf("front-proxy")], &ANNA)).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("anna", 2));
        assert_eq!(user.extra["acme.com/project"], ["weft"]);
    }

    #[test]
    fn nobody_else_is_believed() {
        let (ca, other) = (Ca::new(), Ca::new());
        let proxy = proxy(&ca, r#"["front-proxy"]"#);
        let refused = |shown: &[CertificateDer<'static>], headers: &[(&str, &str)]| {
            proxy.user(&parts(shown, headers)).unwrap_err()
        };
        assert!(refused(&[], &ANNA).contains("with its certificate"));
        assert!(refused(&[other.leaf("front-proxy")], &ANNA).contains("not the API server's front proxy"));
        assert!(refused(&[ca.leaf("kubelet")], &ANNA).contains("is not that of"));
        assert!(refused(&[CertificateDer::from(vec![1, 2, 3])], &ANNA).contains("front proxy"));
        assert!(refused(&[ca.leaf("front-proxy")], &[]).contains("names no user"));
        assert!(Proxy::default().user(&parts(&[ca.leaf("front-proxy")], &ANNA)).is_err());
    }

    #[test]
    fn any_name_will_do_where_none_is_told() {
        let ca = Ca::new();
        assert!(proxy(&ca, "[]").user(&parts(&[ca.leaf("aggregator")], &ANNA)).is_ok());
    }
}
