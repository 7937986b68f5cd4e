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
  containers: [{name: app, image: x, ports: [{containerPort: 8080}]}]
status:
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}]
  phase: Running
  conditions: [{type: Ready, status: 'True'}]
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-0
  namespace: shop
  labels: {app: cart}
spec:
  serviceAccountName: cart
  containers: [{name: app, image: x, ports: [{containerPort: 8080}]}]
status:
  podIP: 10.0.0.2
  podIPs: [{ip: 10.0.0.2}]
  phase: Running
  conditions: [{type: Ready, status: 'True'}]
";
