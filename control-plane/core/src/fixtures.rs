//! A small shop for tests: manifests in, model and compiled config out.
//!
//! Invariant: only tests see this.

use serde_json::Value;

use crate::{
    compile::{Compiled, build},
    config::{Filter, Inbound, Key, Outbound, Resource, ResourceType, Rule},
    model::{Kind, Model, ObjectKey, Position, read},
    report::{Condition, ConditionType, ObjectReport},
};

/// Two services with two pods and one pod; namespace shop; plus a client namespace without anything.
pub(crate) const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  selector: {app: catalog}
  ports:
  - {name: web, port: 80, targetPort: http}
  - {name: admin, port: 9000, targetPort: 9001}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.8
  selector: {app: cart}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-0, namespace: shop, labels: {app: catalog, version: v1}, annotations: {weft.dev/sidecar: injected}}
spec:
  serviceAccountName: catalog
  containers: [{name: app, ports: [{name: http, containerPort: 8080}]}]
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: catalog-1, namespace: shop, labels: {app: catalog, version: v2}, annotations: {weft.dev/pod-ip: 10.1.0.2}}
spec:
  containers: [{name: app, ports: [{name: http, containerPort: 8081}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}, annotations: {weft.dev/pod-ip: 10.1.0.3}}
spec:
  serviceAccountName: cart
  containers: [{name: app}, {name: weft-proxy}]
";

/// Documents of a text. Booleans are those of YAML 1.2: a namespace may be called `n`.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let texts = yaml.split("\n---").filter(|text| !text.trim().is_empty());
    let options = serde_saphyr::options! { strict_booleans: true };
    let parse = |text: &str| {
        serde_saphyr::from_str_with_options(text, options.clone())
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    texts.map(parse).collect()
}

/// Adds documents to a model.
pub(crate) fn add(model: &mut Model, yaml: &str) {
    for (line, document) in (1u32..).zip(documents(yaml)) {
        let read = read(document).unwrap_or_else(|error| panic!("{error}\n{yaml}")).expect("a kind of ours");
        assert_eq!(read.unknown_fields, Vec::<String>::new(), "a slip in the test");
        model.apply(read.object, Some(Position { file: "shop.yaml".into(), line }));
    }
}

/// A model of documents.
pub(crate) fn model(yaml: &str) -> Model {
    let mut model = Model::default();
    add(&mut model, yaml);
    model
}

/// The shop and more.
pub(crate) fn shop(more: &str) -> Compiled {
    let mut model = model(SHOP);
    add(&mut model, more);
    build(&model)
}

/// An HTTPRoute in shop with a parent Service and rules.
pub(crate) fn http_route(name: &str, parent: &str, rules: &str) -> String {
    route("HTTPRoute", "shop", name, parent, rules)
}

/// A route with one parent Service and rules, both as flow YAML.
pub(crate) fn route(kind: &str, namespace: &str, name: &str, parent: &str, rules: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: '', kind: Service, {parent}}}]
  rules: {rules}
"
    )
}

impl Compiled {
    pub(crate) fn object(&self, kind: Kind, namespace: &str, name: &str) -> &ObjectReport {
        let key = ObjectKey::new(kind, namespace, name);
        self.report.objects.get(&key).unwrap_or_else(|| panic!("no report of {key}"))
    }

    /// A condition as "True/Reason: message".
    pub(crate) fn says(&self, kind: Kind, namespace: &str, name: &str, condition: ConditionType) -> String {
        self.object(kind, namespace, name).condition(condition).map(text).unwrap_or_default()
    }

    pub(crate) fn outbound(&self, name: &str, client_namespace: &str) -> &Outbound {
        self.config.outbound(name, client_namespace).unwrap_or_else(|| panic!("no outbound {name}"))
    }

    pub(crate) fn inbound(&self, pod: &str) -> &Inbound {
        match self.config.resources.get(&Key::new(ResourceType::Inbound, pod)) {
            Some(Resource::Inbound(inbound)) => inbound,
            other => panic!("no inbound {pod}: {other:?}"),
        }
    }

    /// Names of the routes of an outbound.
    pub(crate) fn routes(&self, name: &str, client_namespace: &str) -> Vec<&str> {
        let routes = &self.outbound(name, client_namespace).routes;
        routes.iter().map(|route| route.origin.name.as_str()).collect()
    }

    /// The only rule of the only route of catalog's port 80.
    pub(crate) fn rule(&self) -> &Rule {
        match self.outbound("shop/catalog:80", "shop").routes.as_slice() {
            [route] if route.rules.len() == 1 => &route.rules[0],
            routes => panic!("{routes:?}"),
        }
    }

    pub(crate) fn endpoints(&self, name: &str) -> Vec<&str> {
        let backend = self.config.backend(name).unwrap_or_else(|| panic!("no backend {name}"));
        backend.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect()
    }
}

/// A condition as "True/Reason: message".
pub(crate) fn text(condition: &Condition) -> String {
    let status = if condition.status { "True" } else { "False" };
    format!("{status}/{}: {}", condition.reason.as_str(), condition.message)
}

/// The fixed reply of a rule, as "status reason".
pub(crate) fn reply(rule: &Rule) -> String {
    let replies = rule.filters.iter().filter_map(|filter| match filter {
        Filter::Reply(reply) => Some(format!("{} {}", reply.status, reply.reason)),
        _ => None,
    });
    replies.collect::<Vec<_>>().join(", ")
}
