//! Certificates are for the pod that asks, and for nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use weft_cluster::scenario::{App, Mesh, Space};

/// What the control plane counts a certificate as that it gave.
const ISSUED: [&str; 3] = ["\"Join\"", "\"Renewal\"", "\"Own\""];

/// A client that may ask, and a pod whose identity is worth stealing.
struct Scene<'m> {
    mesh: &'m Mesh,
    space: Space<'m>,
    outside: Space<'m>,
    victim: String,
}

impl<'m> Scene<'m> {
    fn new(mesh: &'m Mesh, name: &str) -> Self {
        let (space, outside) = (mesh.meshed(name).unwrap(), mesh.plain(&format!("{name}-outside")).unwrap());
        space.run(&[App::new("victim"), App::new("thief")]).unwrap();
        outside.run(&[App::new("tool")]).unwrap();
        let victim = space.pod("app=victim").unwrap().0;
        Self { mesh, space, outside, victim }
    }

    /// A token of a pod, as the kubelet would get it.
    fn token(&self, account: &str, pod: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        let pod = format!("--bound-object-name={pod}");
        let token = ["create", "token", account, &audience, "--bound-object-kind=Pod", &pod];
        self.space.kubectl(&token).unwrap().trim().to_owned()
    }

    /// The same token, in all but its time: signed with the API server's own key.
    fn expired(&self, token: &str) -> String {
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims: Value = serde_json::from_slice(&URL.decode(parts[1]).unwrap()).unwrap();
        for (name, value) in [("iat", 1_700_000_000), ("nbf", 1_700_000_000), ("exp", 1_700_003_600)] {
            claims[name] = value.into();
        }
        let signed = format!("{}.{}", parts[0], URL.encode(claims.to_string()));
        let key = std::fs::read_to_string(self.mesh.cluster.folder().join("pki/sa.key")).unwrap();
        let key = PemObject::from_pem_slice(key.as_bytes()).unwrap();
        let PrivateKeyDer::Pkcs8(key) = key else { panic!("the key is PKCS #8") };
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der()).unwrap();
        let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL.encode(signature))
    }

    fn sign(&self, pod: &str, token: &str, csr: &str) -> Value {
        let workload = format!("--workload={}/{pod}", self.space.name);
        let (token, csr) = (format!("--token={token}"), format!("--csr={csr}"));
        let told = self.outside.load("deployment/tool-v1", &["sign", &workload, &token, &csr]).unwrap();
        told.into_iter().next().unwrap()
    }

    /// Refusals that the control plane has counted.
    fn refusals(&self) -> u64 {
        let metrics = self
            .outside
            .get("deployment/tool-v1", "http://weft-control-plane.weft-system:15014/metrics", &[])
            .unwrap();
        let lines = metrics.body().lines().filter(|line| {
            line.starts_with("weft_control_plane_certificates_total")
                && !ISSUED.iter().any(|issued| line.contains(issued))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Tries what must be refused: with this code, logged with this word, counted.
    fn refused(&self, pod: &str, token: &str, csr: &str, code: &str) -> String {
        let before = self.refusals();
        let told = self.sign(pod, token, csr);
        assert_eq!(told["code"], code, "{told}");
        assert!(self.refusals() > before, "{told} is counted");
        let message = told["message"].as_str().unwrap().to_owned();
        assert!(!token.is_empty() && !message.contains(token), "a token is never repeated: {message}");
        self.space
            .until("the refusal in the control plane's log", || {
                let log = self.mesh.cluster.logs(
                    "weft-system",
                    "deployment/weft-control-plane",
                    "control-plane",
                )?;
                assert!(!log.contains(token), "a token is never logged");
                Ok(log.contains(&format!("{}/{pod}", self.space.name)).then_some(()))
            })
            .unwrap();
        message
    }
}

#[test]
fn a_pods_own_token_gives_its_own_identity_and_no_other() {
    let Some(mesh) = super::mesh() else { return };
    let scene = Scene::new(mesh, "identity");
    let own = scene.token("victim", &scene.victim, "weft.dev");
    let told = scene.sign(&scene.victim, &own, "good");
    assert_eq!(told["identity"], "spiffe://cluster.local/ns/identity/sa/victim", "{told}");

    let thief = scene.space.pod("app=thief").unwrap().0;
    let stolen = scene.token("thief", &thief, "weft.dev");
    let message = scene.refused(&scene.victim, &stolen, "good", "PermissionDenied");
    assert!(message.contains("another pod's"), "{message}");

    scene.refused(&scene.victim, &own, "forged", "InvalidArgument");
    scene.refused(&scene.victim, &own, "other-key", "InvalidArgument");
    scene.refused(&scene.victim, &own, "garbage", "InvalidArgument");
}

#[test]
fn a_token_that_is_for_others_dead_or_tampered_with_gives_nothing() {
    let Some(mesh) = super::mesh() else { return };
    let scene = Scene::new(mesh, "tokens");
    let other = scene.token("victim", &scene.victim, "elsewhere.example");
    scene.refused(&scene.victim, &other, "good", "Unauthenticated");

    let token = scene.token("victim", &scene.victim, "weft.dev");
    let (head, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let last = if claims.ends_with('A') { 'B' } else { 'A' };
    let tampered = format!("{head}.{}{last}.{signature}", &claims[..claims.len() - 1]);
    scene.refused(&scene.victim, &tampered, "good", "Unauthenticated");
    scene.refused(&scene.victim, "not-a-token", "good", "Unauthenticated");

    let unbound = scene.space.kubectl(&["create", "token", "victim", "--audience=weft.dev"]).unwrap();
    scene.refused(&scene.victim, unbound.trim(), "good", "PermissionDenied");

    let message = scene.refused(&scene.victim, &scene.expired(&token), "good", "Unauthenticated");
    assert!(message.contains("expired"), "{message}");

    scene.space.kubectl(&["delete", "pod", &scene.victim, "--wait=true"]).unwrap();
    scene.refused(&scene.victim, &token, "good", "Unauthenticated");
}
