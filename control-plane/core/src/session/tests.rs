//! What a subscriber is owed, step by step and under random churn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use proptest::prelude::*;

use super::*;
use crate::{
    compile::{Compiler, compile},
    config::{Config, Resource, Trust},
    fixtures::{SHOP, add, documents, http_route, model, route},
    model::{Kind, Model, read},
};

/// A stand-in for the wire: the debug form, and a hash that no test can make collide by accident.
fn encode(resource: &Resource) -> Encoded {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let body = format!("{resource:?}");
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &body).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    let mut version = [0; 16];
    version[..8].copy_from_slice(&half(1));
    version[8..].copy_from_slice(&half(2));
    Encoded { version, body: body.into_bytes().into() }
}

fn published(model: &Model) -> Published {
    Published::new(1, Arc::new(compile(model)), encode)
}

fn address(name: &str) -> Key {
    Key::new(ResourceType::Address, name)
}

fn backend(name: &str) -> Key {
    Key::new(ResourceType::Backend, name)
}

fn outbound(name: &str) -> Key {
    Key::new(ResourceType::Outbound, name)
}

fn session(subscriptions: &[Key]) -> Session {
    open("shop/cart-0", subscriptions, Vec::new())
}

fn open(workload: &str, subscriptions: &[Key], held: Vec<(Key, Version)>) -> Session {
    let hello = Hello { workload: workload.to_owned(), held, subscriptions: subscriptions.to_vec() };
    Session::open(hello).unwrap()
}

fn names(epoch: &Epoch) -> Vec<String> {
    let upserts = epoch.upserts.iter().map(|(key, _)| format!("+{:?} {}", key.kind, key.name));
    let removals = epoch.removals.iter().map(|key| format!("-{:?} {}", key.kind, key.name));
    upserts.chain(removals).collect()
}

fn accept(session: &mut Session, epoch: &Epoch) {
    let ack = Ack { nonce: epoch.nonce, refusals: Vec::new() };
    assert_eq!(session.acknowledge(ack), Ok(Vec::new()));
}

fn refuse(session: &mut Session, epoch: &Epoch, key: &Key, reason: &str) -> Vec<Refusal> {
    let version = epoch.upserts.iter().find(|(sent, _)| sent == key).unwrap().1.version;
    let refusal = Refusal { key: key.clone(), version, reason: reason.to_owned() };
    session.acknowledge(Ack { nonce: epoch.nonce, refusals: vec![refusal] }).unwrap()
}

/// Next epoch, accepted.
fn step(session: &mut Session, published: &Published) -> Vec<String> {
    let Some(epoch) = session.next(published) else { return Vec::new() };
    accept(session, &epoch);
    names(&epoch)
}

const FALLBACK: &str = "
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: catalog, namespace: shop}
spec: {targetRefs: [{kind: Service, name: catalog}], fallback: {name: cart, port: 80}}
";

#[test]
fn an_address_brings_everything_behind_it_in_one_epoch() {
    let mut model = model(SHOP);
    add(
        &mut model,
        &http_route("r", "name: catalog, port: 80", "[{backendRefs: [{name: catalog, port: 9000}]}]"),
    );
    add(&mut model, FALLBACK);
    let mut session = session(&[address("10.96.0.7:80")]);
    let epoch = session.next(&published(&model)).unwrap();
    assert_eq!((epoch.nonce, epoch.generation), (1, 1));
    assert_eq!(
        names(&epoch),
        [
            "+Mesh mesh",
            "+Inbound shop/cart-0",
            "+Address 10.96.0.7:80",
            "+Outbound shop/catalog:80",
            "+Backend shop/cart:80",
            "+Backend shop/catalog:80",
            "+Backend shop/catalog:9000",
        ]
    );
}

#[test]
fn inbound_brings_its_policies_and_trust_comes_unasked() {
    let mut model = model(SHOP);
    add(
        &mut model,
        "
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {targetRefs: [{kind: Namespace}], action: Allow}
",
    );
    let mut config = compile(&model);
    let trust = Trust { trust_domain: "cluster.local".to_owned(), roots: vec![vec![1]] };
    config.resources.insert(Key::new(ResourceType::Trust, "cluster.local"), Resource::Trust(trust));
    let published = Published::new(7, Arc::new(config), encode);
    assert_eq!(
        step(&mut session(&[]), &published),
        ["+Mesh mesh", "+Trust cluster.local", "+Inbound shop/cart-0", "+Authorization shop/closed"]
    );
}

#[test]
fn only_what_differs_is_sent_and_nothing_when_nothing_does() {
    let mut model = model(SHOP);
    let mut session = session(&[address("10.96.0.7:80")]);
    let first = published(&model);
    step(&mut session, &first);
    assert_eq!(session.next(&first), None);
    model.remove(Kind::Pod, "shop", "catalog-1");
    let second = first.after(Arc::new(compile(&model))).unwrap();
    assert_eq!(step(&mut session, &second), ["+Backend shop/catalog:80"]);
    assert_eq!(step(&mut session, &second), Vec::<String>::new());
}

#[test]
fn a_change_elsewhere_sends_nothing() {
    let mut model = model(SHOP);
    let mut session = session(&[address("10.96.0.8:80")]);
    let first = published(&model);
    step(&mut session, &first);
    model.remove(Kind::Pod, "shop", "catalog-1");
    let second = first.after(Arc::new(compile(&model))).unwrap();
    assert_eq!(session.next(&second), None);
}

#[test]
fn equal_configs_are_not_published_twice_and_equal_resources_not_encoded_twice() {
    let mut model = model(SHOP);
    let first = published(&model);
    assert!(first.after(Arc::new(compile(&model))).is_none());
    model.remove(Kind::Pod, "shop", "catalog-1");
    let second = first.after(Arc::new(compile(&model))).unwrap();
    assert_eq!(second.generation(), 2);
    let body = |published: &Published, name: &str| published.find(&backend(name), "shop").unwrap().0.body;
    let same = |name| Arc::ptr_eq(&body(&first, name), &body(&second, name));
    assert!(same("shop/cart:80"));
    assert!(!same("shop/catalog:80"));
}

#[test]
fn each_resource_is_encoded_once_for_as_long_as_it_stays_equal() {
    static ENCODED: AtomicUsize = AtomicUsize::new(0);
    fn counting(resource: &Resource) -> Encoded {
        ENCODED.fetch_add(1, Relaxed);
        encode(resource)
    }
    let encoded = || ENCODED.swap(0, Relaxed);
    let mut compiler = Compiler::new(model(SHOP));
    let first = Published::nothing(counting).apply(&compiler.compile()).unwrap();
    assert_eq!(encoded(), first.keys().len());
    compiler.remove(Kind::Pod, "shop", "catalog-1");
    let second = first.apply(&compiler.compile()).unwrap();
    assert_eq!(
        (second.generation(), encoded()),
        (2, 2),
        "the Backends of the two ports that lost an endpoint, and nothing else"
    );
    let mut sessions: Vec<Session> =
        (0..100).map(|_| session(&[outbound("shop/catalog:80"), outbound("shop/cart:80")])).collect();
    let bodies: Vec<Epoch> = sessions.iter_mut().filter_map(|session| session.next(&second)).collect();
    let shared = |epoch: &Epoch| {
        let pairs = epoch.upserts.iter().zip(&bodies[0].upserts);
        pairs.into_iter().all(|(one, other)| Arc::ptr_eq(&one.1.body, &other.1.body))
    };
    assert!(bodies.len() == 100 && bodies.iter().all(shared));
    assert_eq!(encoded(), 0, "subscribers cost no encoding");
}

#[test]
fn what_was_referred_to_before_it_was_there_is_sent_when_it_comes() {
    let policy = "
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {targetRefs: [{kind: Namespace}], action: Allow}
";
    let mut model = model(SHOP);
    add(&mut model, policy);
    let whole = compile(&model);
    let mut without = whole.clone();
    without.resources.remove(&Key::new(ResourceType::Authorization, "shop/closed"));
    let first = Published::new(1, Arc::new(without), encode);
    let mut session = session(&[]);
    step(&mut session, &first);
    let second = first.after(Arc::new(whole)).unwrap();
    assert_eq!(step(&mut session, &second), ["+Authorization shop/closed"]);
}

#[test]
fn a_session_that_slept_through_more_than_is_remembered_still_gets_the_difference() {
    let mut compiler = Compiler::new(model(SHOP));
    let mut published = Published::nothing(encode).apply(&compiler.compile()).unwrap();
    let mut session = session(&[outbound("shop/catalog:80")]);
    step(&mut session, &published);
    compiler.remove(Kind::Pod, "shop", "catalog-1");
    published = published.apply(&compiler.compile()).unwrap();
    for round in 0..200 {
        let service = format!(
            "\napiVersion: v1\nkind: Service\nmetadata: {{name: s{round}, namespace: x}}\nspec: {{ports: [{{port: 80}}]}}"
        );
        for document in documents(&service) {
            compiler.apply(read(document).unwrap().unwrap().object, None);
        }
        published = published.apply(&compiler.compile()).unwrap();
    }
    assert!(published.changes_since(1).is_none() && published.changes_since(200).is_some());
    assert_eq!(step(&mut session, &published), ["+Backend shop/catalog:80"]);
}

#[test]
fn what_the_last_subscription_referred_to_goes_with_it() {
    let published = published(&model(SHOP));
    let mut session = session(&[address("10.96.0.7:80"), outbound("shop/catalog:80")]);
    step(&mut session, &published);
    session.subscribe(Vec::new(), vec![address("10.96.0.7:80"), address("9.9.9.9:1")]).unwrap();
    assert_eq!(step(&mut session, &published), ["-Address 10.96.0.7:80"]);
    session.subscribe(Vec::new(), vec![outbound("shop/catalog:80")]).unwrap();
    assert_eq!(step(&mut session, &published), ["-Outbound shop/catalog:80", "-Backend shop/catalog:80"]);
}

#[test]
fn a_pod_address_is_answered_for_any_port_and_an_unclaimed_one_is_unknown() {
    let published = published(&model(SHOP));
    let mut session =
        session(&[address("10.1.0.1:12345"), address("192.0.2.1:80"), address("[::ffff:10.96.0.7]:80")]);
    let epoch = session.next(&published).unwrap();
    let body = |name: &str| {
        let found = epoch.upserts.iter().find(|(key, _)| *key == address(name)).unwrap();
        String::from_utf8(found.1.body.to_vec()).unwrap()
    };
    let pod = body("10.1.0.1:12345");
    assert!(pod.contains("\"10.1.0.1:12345\"") && pod.contains("shop/catalog-0"), "{pod}");
    assert_eq!(body("192.0.2.1:80"), "Address(Unknown)");
    assert_eq!(body("[::ffff:10.96.0.7]:80"), "Address(Outbound(\"shop/catalog:80\"))");
}

#[test]
fn a_subscribed_name_of_nothing_is_answered_once() {
    let mut model = model("");
    let mut session = session(&[outbound("shop/catalog:80")]);
    let first = published(&model);
    assert_eq!(
        step(&mut session, &first),
        ["+Mesh mesh", "-Inbound shop/cart-0", "-Outbound shop/catalog:80"]
    );
    assert_eq!(session.next(&first), None);
    add(&mut model, SHOP);
    let second = first.after(Arc::new(compile(&model))).unwrap();
    let came = step(&mut session, &second);
    assert!(came.contains(&"+Outbound shop/catalog:80".to_owned()), "{came:?}");
    let third = second.after(Arc::new(compile(&Model::default()))).unwrap();
    let gone = step(&mut session, &third);
    assert!(gone.contains(&"-Outbound shop/catalog:80".to_owned()), "{gone:?}");
    assert_eq!(session.next(&third), None);
    session.subscribe(vec![outbound("shop/catalog:80")], Vec::new()).unwrap();
    assert_eq!(step(&mut session, &third), ["-Outbound shop/catalog:80"], "asked again, answered again");
}

#[test]
fn one_epoch_is_in_flight_and_what_changes_meanwhile_comes_at_once() {
    let mut model = model(SHOP);
    let mut session = session(&[address("10.96.0.7:80")]);
    let first = published(&model);
    let epoch = session.next(&first).unwrap();
    model.remove(Kind::Pod, "shop", "catalog-1");
    let second = first.after(Arc::new(compile(&model))).unwrap();
    assert!(session.is_waiting());
    assert_eq!(session.next(&second), None);
    model.remove(Kind::Pod, "shop", "catalog-0");
    let third = second.after(Arc::new(compile(&model))).unwrap();
    session.subscribe(vec![address("10.96.0.8:80")], Vec::new()).unwrap();
    accept(&mut session, &epoch);
    let epoch = session.next(&third).unwrap();
    assert_eq!((epoch.nonce, epoch.generation), (2, 3));
    assert_eq!(
        names(&epoch),
        [
            "+Address 10.96.0.8:80",
            "+Outbound shop/cart:80",
            "+Backend shop/cart:80",
            "+Backend shop/catalog:80"
        ]
    );
}

#[test]
fn a_subscriber_that_returns_with_what_it_holds_gets_the_difference_and_always_one_epoch() {
    let mut model = model(SHOP);
    let first = published(&model);
    let mut before = session(&[address("10.96.0.7:80")]);
    step(&mut before, &first);
    let held: Vec<(Key, Version)> = before.held().map(|(key, version)| (key.clone(), *version)).collect();

    let mut same = open("shop/cart-0", &[address("10.96.0.7:80")], held.clone());
    let epoch = same.next(&first).unwrap();
    assert_eq!((epoch.nonce, names(&epoch)), (1, Vec::new()));

    model.remove(Kind::Pod, "shop", "catalog-1");
    model.remove(Kind::Service, "shop", "cart");
    let second = first.after(Arc::new(compile(&model))).unwrap();
    let mut later = open("shop/cart-0", &[address("10.96.0.7:80")], held.clone());
    assert_eq!(step(&mut later, &second), ["+Inbound shop/cart-0", "+Backend shop/catalog:80"]);
    let mut less = open("shop/cart-0", &[], held);
    assert_eq!(
        step(&mut less, &first),
        ["-Address 10.96.0.7:80", "-Outbound shop/catalog:80", "-Backend shop/catalog:80"]
    );
}

#[test]
fn a_refused_version_is_reported_and_not_sent_again_until_it_changes() {
    let mut model = model(SHOP);
    let mut session = session(&[outbound("shop/catalog:80")]);
    let first = published(&model);
    let epoch = session.next(&first).unwrap();
    let key = backend("shop/catalog:80");
    let news = refuse(&mut session, &epoch, &key, "no such protocol");
    assert_eq!((news.len(), news[0].reason.as_str()), (1, "no such protocol"));
    assert!(!session.held().any(|(held, _)| *held == key), "nothing was held before");
    assert_eq!(session.next(&first), None);

    model.remove(Kind::Pod, "shop", "cart-0");
    let second = first.after(Arc::new(compile(&model))).unwrap();
    assert_eq!(step(&mut session, &second), ["-Inbound shop/cart-0"]);
    assert_eq!(session.refusals().count(), 1);

    model.remove(Kind::Pod, "shop", "catalog-1");
    let third = second.after(Arc::new(compile(&model))).unwrap();
    assert_eq!(step(&mut session, &third), ["+Backend shop/catalog:80"]);
    assert_eq!(session.refusals().count(), 0);
}

#[test]
fn a_refused_change_leaves_the_last_good_version_held() {
    let mut model = model(SHOP);
    let mut session = session(&[outbound("shop/catalog:80")]);
    let good = published(&model);
    step(&mut session, &good);
    let key = backend("shop/catalog:80");
    let version =
        |session: &Session| session.held().find(|(held, _)| **held == key).map(|(_, version)| *version);
    let last_good = version(&session);
    model.remove(Kind::Pod, "shop", "catalog-1");
    let bad = good.after(Arc::new(compile(&model))).unwrap();
    let epoch = session.next(&bad).unwrap();
    refuse(&mut session, &epoch, &key, "no");
    assert_eq!(version(&session), last_good);
    // The user takes the change back: what is held is right again, and nothing need be sent.
    let back = bad.after(Arc::new(good.config())).unwrap();
    assert_eq!(session.next(&back), None);
    assert_eq!(session.refusals().count(), 0);
}

#[test]
fn a_refusal_of_what_was_not_sent_changes_nothing() {
    let published = published(&model(SHOP));
    let mut session = session(&[]);
    let epoch = session.next(&published).unwrap();
    let never = Refusal { key: backend("shop/cart:80"), version: [0; 16], reason: String::new() };
    let stale = Refusal { key: Key::mesh(), version: [0; 16], reason: String::new() };
    assert_eq!(session.acknowledge(Ack { nonce: epoch.nonce, refusals: vec![never, stale] }), Ok(Vec::new()));
    assert_eq!((session.refusals().count(), session.held().count()), (0, 2));
}

#[test]
fn a_refusals_reason_is_cut_at_a_character() {
    let published = published(&model(SHOP));
    let mut session = session(&[]);
    let epoch = session.next(&published).unwrap();
    let news = refuse(&mut session, &epoch, &Key::mesh(), &"é".repeat(MAX_REASON));
    assert_eq!(news[0].reason.len(), MAX_REASON);
}

#[test]
fn clients_of_a_route_namespace_get_their_own_variant_under_the_same_name() {
    let mut model = model(SHOP);
    add(&mut model, &route("HTTPRoute", "web", "mine", "name: catalog, namespace: shop", "[{}]"));
    let published = published(&model);
    let body = |workload: &str| {
        let epoch = open(workload, &[outbound("shop/catalog:80")], Vec::new()).next(&published).unwrap();
        let (key, found) =
            epoch.upserts.iter().find(|(key, _)| key.kind == ResourceType::Outbound).unwrap().clone();
        assert_eq!(key, outbound("shop/catalog:80"));
        String::from_utf8(found.body.to_vec()).unwrap()
    };
    assert!(body("web/front-0").contains("mine"));
    assert!(!body("shop/cart-0").contains("mine"));
}

#[test]
fn a_stream_that_asks_for_what_it_cannot_is_at_fault() {
    let hello = |workload: &str, subscriptions: Vec<Key>| Hello {
        workload: workload.to_owned(),
        subscriptions,
        held: Vec::new(),
    };
    let many = |count: usize| (0..count).map(|port| outbound(&format!("a/b:{port}"))).collect::<Vec<_>>();
    for (hello, expected) in [
        (hello("cart-0", vec![]), SessionError::BadWorkload("cart-0".to_owned())),
        (hello("/cart-0", vec![]), SessionError::BadWorkload("/cart-0".to_owned())),
        (hello("a/b", vec![address("catalog:80")]), SessionError::BadAddress("catalog:80".to_owned())),
        (hello("a/b", vec![backend("a/b:1")]), SessionError::NotSubscribable(backend("a/b:1"))),
        (hello("a/b", many(MAX_SUBSCRIPTIONS + 1)), SessionError::TooManySubscriptions),
        (
            Hello { held: vec![(Key::mesh(), [0; 16]); MAX_HELD + 1], ..hello("a/b", vec![]) },
            SessionError::TooManyHeld,
        ),
    ] {
        assert_eq!(Session::open(hello).unwrap_err(), expected);
    }
    let mut full = open("a/b", &many(MAX_SUBSCRIPTIONS), Vec::new());
    assert_eq!(full.subscribe(vec![outbound("x/y:1")], Vec::new()), Err(SessionError::TooManySubscriptions));
    assert_eq!(full.subscribe(vec![outbound("x/y:1")], vec![outbound("a/b:1")]), Ok(()));
    assert_eq!(full.subscribe(vec![outbound("x/y:1")], Vec::new()), Ok(()), "no error, twice");
}

#[test]
fn an_acknowledgement_of_another_epoch_is_an_error() {
    let published = published(&model(SHOP));
    let mut session = session(&[]);
    let ack = |nonce| Ack { nonce, refusals: Vec::new() };
    assert_eq!(session.acknowledge(ack(1)), Err(SessionError::UnexpectedAck { nonce: 1, expected: None }));
    session.next(&published).unwrap();
    assert_eq!(session.acknowledge(ack(2)), Err(SessionError::UnexpectedAck { nonce: 2, expected: Some(1) }));
    assert_eq!(session.acknowledge(ack(1)), Ok(Vec::new()));
}

/// What one step of a random run does.
#[derive(Debug, Clone)]
enum Move {
    Toggle(usize),
    Subscribe(usize),
    Drop(usize),
    Publish,
    Send,
    Ack,
    Refuse(usize),
    Reconnect,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let any_move = prop_oneof![
        3 => (0..PARTS).prop_map(Move::Toggle),
        2 => (0..6usize).prop_map(Move::Subscribe),
        1 => (0..6usize).prop_map(Move::Drop),
        3 => Just(Move::Publish),
        4 => Just(Move::Send),
        3 => Just(Move::Ack),
        1 => (0..8usize).prop_map(Move::Refuse),
        1 => Just(Move::Reconnect),
    ];
    proptest::collection::vec(any_move, 0..60)
}

/// Manifests that come and go.
const PARTS: usize = 7;

fn part(index: usize) -> String {
    match index {
        0 => SHOP.to_owned(),
        1 => http_route("r", "name: catalog", "[{backendRefs: [{name: cart, port: 80}]}]"),
        2 => route(
            "GRPCRoute",
            "shop",
            "g",
            "name: catalog, port: 9000",
            "[{backendRefs: [{name: catalog, port: 80}]}]",
        ),
        3 => route(
            "HTTPRoute",
            "web",
            "c",
            "name: catalog, namespace: shop",
            "[{backendRefs: [{name: cart, port: 80, namespace: shop}]}]",
        ),
        4 => FALLBACK.to_owned(),
        5 => "
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: shop}
spec: {targetRefs: [{kind: Namespace}], action: Allow}
"
        .to_owned(),
        _ => "
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: mesh}
spec: {trustDomain: example.org}
"
        .to_owned(),
    }
}

fn subscription(index: usize) -> Key {
    match index {
        0 => address("10.96.0.7:80"),
        1 => address("10.96.0.7:9000"),
        2 => address("10.1.0.1:99"),
        3 => address("192.0.2.1:1"),
        4 => outbound("shop/cart:80"),
        _ => outbound("shop/gone:1"),
    }
}

/// The far side: it holds what it was sent and did not refuse.
#[derive(Default)]
struct Sidecar {
    held: BTreeMap<Key, Encoded>,
    pending: Option<Epoch>,
}

impl Sidecar {
    /// Takes or refuses the epoch in flight; returns whether all was taken.
    fn answer(&mut self, session: &mut Session, refuse: Option<usize>) -> bool {
        let Some(epoch) = self.pending.take() else { return false };
        let refused = refuse.and_then(|index| epoch.upserts.get(index)).map(|(key, resource)| Refusal {
            key: key.clone(),
            version: resource.version,
            reason: "random".to_owned(),
        });
        for key in &epoch.removals {
            self.held.remove(key);
        }
        for (key, resource) in epoch.upserts {
            if refused.as_ref().is_none_or(|refusal| refusal.key != key) {
                self.held.insert(key, resource);
            }
        }
        let whole = refused.is_none();
        session.acknowledge(Ack { nonce: epoch.nonce, refusals: refused.into_iter().collect() }).unwrap();
        whole
    }
}

/// What a subscriber should hold, written down independently of the session.
fn expected(published: &Published, subscriptions: &BTreeSet<Key>) -> BTreeMap<Key, Encoded> {
    let own = [Key::mesh(), Key::new(ResourceType::Inbound, "web/front-0")];
    let mut expected = BTreeMap::new();
    let mut queue: Vec<Key> = subscriptions.iter().cloned().chain(own).collect();
    while let Some(key) = queue.pop() {
        let Some((resource, references)) = published.find(&key, "web") else { continue };
        if expected.insert(key, resource).is_none() {
            queue.extend(references);
        }
    }
    expected
}

fn config_of(parts: &BTreeSet<usize>) -> Arc<Config> {
    let mut model = Model::default();
    parts.iter().for_each(|index| add(&mut model, &part(*index)));
    Arc::new(compile(&model))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_churn_ends_with_exactly_the_closure(moves in moves()) {
        let mut parts = BTreeSet::from([0]);
        let mut published = Published::new(1, config_of(&parts), encode);
        let mut subscriptions = BTreeSet::new();
        let mut session = open("web/front-0", &[], Vec::new());
        let mut sidecar = Sidecar::default();
        let mut sent = BTreeMap::new();
        for one in moves {
            match one {
                Move::Toggle(index) => {
                    if !parts.remove(&index) {
                        parts.insert(index);
                    }
                }
                Move::Publish => published = published.after(config_of(&parts)).unwrap_or(published),
                Move::Subscribe(index) => {
                    subscriptions.insert(subscription(index));
                    session.subscribe(vec![subscription(index)], Vec::new()).unwrap();
                }
                Move::Drop(index) => {
                    subscriptions.remove(&subscription(index));
                    session.subscribe(Vec::new(), vec![subscription(index)]).unwrap();
                }
                Move::Send => {
                    if let Some(epoch) = session.next(&published) {
                        prop_assert!(sidecar.pending.is_none(), "two epochs in flight");
                        sent = expected(&published, &subscriptions);
                        sidecar.pending = Some(epoch);
                    }
                }
                Move::Ack => {
                    // Whole: what is held now is one generation's closure, and nothing else.
                    if sidecar.answer(&mut session, None) && session.refusals().count() == 0 {
                        prop_assert_eq!(&sidecar.held, &sent);
                    }
                }
                Move::Refuse(index) => drop(sidecar.answer(&mut session, Some(index))),
                Move::Reconnect => {
                    sidecar.pending = None;
                    let held = sidecar.held.iter().map(|(key, resource)| (key.clone(), resource.version)).collect();
                    let names: Vec<Key> = subscriptions.iter().cloned().collect();
                    session = open("web/front-0", &names, held);
                }
            }
        }
        sidecar.answer(&mut session, None);
        while let Some(epoch) = session.next(&published) {
            prop_assert!(epoch.nonce < 1000, "never settles");
            sidecar.pending = Some(epoch);
            sidecar.answer(&mut session, None);
        }
        let believed: BTreeMap<Key, Version> = session.held().map(|(key, version)| (key.clone(), *version)).collect();
        let held: BTreeMap<Key, Version> =
            sidecar.held.iter().map(|(key, resource)| (key.clone(), resource.version)).collect();
        prop_assert_eq!(believed, held, "the session knows what is held, refusals included");
        let mut wanted = expected(&published, &subscriptions);
        for refusal in session.refusals() {
            // A refused version stays out; whatever good version was there stays in.
            wanted.remove(&refusal.key);
            sidecar.held.remove(&refusal.key);
        }
        prop_assert_eq!(sidecar.held, wanted);
    }
}
