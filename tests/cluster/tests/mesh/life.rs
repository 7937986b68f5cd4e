//! The life of pods that are not servers for ever: Jobs, init containers, and the kubelet's questions.

use weft_cluster::scenario::{App, LOAD_IMAGE, field};

#[test]
fn a_job_ends_with_its_sidecar_and_its_init_container_speaks_through_the_mesh() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("job").unwrap();
    space.run(&[App::new("server")]).unwrap();
    let container = |name: &str| {
        format!(
            "{{name: {name}, image: '{LOAD_IMAGE}', imagePullPolicy: Never,
               args: [get, 'http://server/{name}', '--expect=200']}}"
        )
    };
    space
        .apply(&format!(
            "
apiVersion: batch/v1
kind: Job
metadata: {{name: errand}}
spec:
  backoffLimit: 0
  template:
    metadata: {{labels: {{app: errand}}}}
    spec:
      restartPolicy: Never
      initContainers: [{}]
      containers: [{}]
",
            container("before"),
            container("then")
        ))
        .unwrap();
    space
        .until("the job to end well", || {
            let job = space.object("job/errand")?;
            anyhow::ensure!(field(&job, "status.failed").is_null(), "it failed: {}", field(&job, "status"));
            Ok((field(&job, "status.succeeded") == 1).then_some(()))
        })
        .unwrap();
    for path in ["/before", "/then"] {
        let entry = space.logged("app=server", |entry| entry["http.path"] == path).unwrap();
        assert_eq!(entry["security"], "mutual_tls", "{entry}");
        assert_eq!(entry["src.identity"], "spiffe://cluster.local/ns/job/sa/default", "{entry}");
    }
}

#[test]
fn probes_of_all_kinds_are_green_under_strict_and_open_nothing_else() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("probes").unwrap();
    let outside = mesh.plain("probes-outside").unwrap();
    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: TlsPolicy, metadata: {name: strict},
              spec: {targetRefs: [{kind: Namespace}], mode: Strict}}",
        )
        .unwrap();
    let probes = "startupProbe: {grpc: {port: 8080}, periodSeconds: 1}
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
        livenessProbe: {tcpSocket: {port: 9090}, periodSeconds: 1, failureThreshold: 2}";
    let secure = "readinessProbe: {httpGet: {path: /ready, port: 8443, scheme: HTTPS}, periodSeconds: 1}";
    space
        .run(&[
            App::new("server").probes(probes),
            App::new("secure").arguments(&["--https=8443"]).probes(secure),
        ])
        .unwrap();
    outside.run(&[App::new("stranger")]).unwrap();

    let probed = space
        .until("three kinds of probes in the log", || {
            let log = space.access_log("app=server")?;
            let of = |kind: &str| log.iter().filter(|entry| entry["probe"] == kind).count();
            let counts = (of("grpc"), of("http"), of("tcp"));
            if counts.0 > 0 && counts.1 > 1 && counts.2 > 1 {
                Ok(Some(log))
            } else {
                anyhow::bail!("{counts:?}")
            }
        })
        .unwrap();
    assert!(
        probed.iter().filter(|entry| entry["probe"] == "http").all(|entry| entry["http.path"] == "/ready")
    );
    let (_, address) = space.pod("app=server").unwrap();
    for path in ["/ready", "/other"] {
        let answer = outside
            .get("deployment/stranger-v1", &format!("http://{address}:8080{path}"), &["--timeout=5"])
            .unwrap();
        assert_ne!(answer.status(), Some(200), "a pod is not the kubelet: {path} {answer:?}");
    }
    let by_https = space.logged("app=secure", |entry| entry["probe"] == "https").unwrap();
    assert_eq!(by_https["security"], "none", "{by_https}");
    let (_, secure) = space.pod("app=secure").unwrap();
    let answer = outside
        .get("deployment/stranger-v1", &format!("https://{secure}:8443/ready"), &["--timeout=5"])
        .unwrap();
    assert_ne!(answer.status(), Some(200), "a pod is not the kubelet: {answer:?}");
    // From the node itself, where the kubelet asks from: only what is declared.
    let told = mesh.on_node(&["get", &format!("http://{address}:8080/other"), "--timeout=5"]).unwrap();
    assert_ne!(told[0]["status"], 200, "{told:?}");
    let told = mesh.on_node(&["get", &format!("http://{address}:8081/ready"), "--timeout=5"]).unwrap();
    assert_ne!(told[0]["status"], 200, "{told:?}");
    let restarts =
        field(&space.pods("app=server").unwrap()[0], "status.containerStatuses.0.restartCount").clone();
    assert_eq!(restarts, 0, "no probe ever failed for long");
}
