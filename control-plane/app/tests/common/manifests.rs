//! A small shop: the cart calls the catalog.

pub const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  selector: {app: catalog}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Pod
metadata:
  name: catalog-0
  namespace: shop
  labels: {app: catalog}
spec:
  serviceAccountName: catalog
  containers: [{name: app, ports: [{containerPort: 8080}]}]
status: {podIP: 10.0.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-0
  namespace: shop
  labels: {app: cart}
spec:
  serviceAccountName: cart
  containers: [{name: app, ports: [{containerPort: 8080}]}]
status: {podIP: 10.0.0.2, phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

/// A second catalog and a route that splits traffic between the two: one save brings both.
pub const CANARY: &str = "\
apiVersion: v1
kind: Service
metadata: {name: catalog-next, namespace: shop}
spec:
  clusterIP: 10.96.0.8
  selector: {app: catalog-next}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: catalog, port: 80}]
  rules:
  - backendRefs:
    - {name: catalog, port: 80, weight: 90}
    - {name: catalog-next, port: 80, weight: 10}
";

/// a route whose parent does not exist.
pub const REFUSED: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: dangling, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: nobody, port: 80}]
  rules:
  - backendRefs: [{name: catalog, port: 80}]
";
