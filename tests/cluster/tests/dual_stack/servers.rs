//! Servers of others, as Debian packages them, in meshed pods: they know nothing of a mesh, and their
//! protocols are not HTTP. PostgreSQL changes to TLS in the middle, Redis waits for the client, RabbitMQ's
//! client speaks a few bytes first.
//!
//! The pods run the node's own programs: its folders are mounted, to be read only.

use std::path::Path;

use weft_cluster::scenario::{LOAD_IMAGE, Mesh, Space};
use weft_cluster::skip;

/// Programs that must be there, and the packages that bring them.
const PROGRAMS: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "postgresql"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"),
    ("/usr/bin/amqp-publish", "amqp-tools"),
];

/// The mesh, if this machine also has these programs.
fn mesh() -> Option<&'static Mesh> {
    let lacking: Vec<&str> =
        PROGRAMS.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    if !lacking.is_empty() {
        skip::say(&format!("packages are not installed: {}", lacking.join(", ")));
        return None;
    }
    super::mesh()
}

/// Where PostgreSQL's programs are.
fn postgresql() -> String {
    let mut versions: Vec<_> =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.last().unwrap().join("bin").display().to_string()
}

/// A pod that runs a script with the node's programs, its Service if it has ports, and its account.
fn pod(space: &Space<'_>, name: &str, ports: &[u16], script: &str) {
    let folders = ["usr", "lib", "lib64", "bin", "etc"];
    let volumes: Vec<String> =
        folders.iter().map(|folder| format!("{{name: {folder}, hostPath: {{path: /{folder}}}}}")).collect();
    let mounts: Vec<String> = folders
        .iter()
        .map(|folder| format!("{{name: {folder}, mountPath: /{folder}, readOnly: true}}"))
        .collect();
    let (volumes, mounts) = (volumes.join(", "), mounts.join(", "));
    let script = serde_json::to_string(script).unwrap();
    let ready = ports.first().map_or_else(String::new, |port| {
        format!("readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}")
    });
    let listed: Vec<String> = ports.iter().map(|port| format!("{{name: p{port}, port: {port}}}")).collect();
    if !ports.is_empty() {
        let listed = listed.join(", ");
        space
            .apply(&format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: {name}}}, ports: [{listed}]}}}}"
            ))
            .unwrap();
    }
    space
        .apply(&format!(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 2
      securityContext: {{runAsUser: 101, runAsGroup: 104, fsGroup: 104}}
      volumes: [{volumes}, {{name: data, emptyDir: {{}}}}]
      containers:
      - name: app
        image: {LOAD_IMAGE}
        imagePullPolicy: Never
        command: [/bin/sh, -ec, {script}]
        env: [{{name: HOME, value: /data}}, {{name: PATH, value: '/usr/sbin:/usr/bin:/sbin:/bin'}}]
        volumeMounts: [{mounts}, {{name: data, mountPath: /data}}, {{name: data, mountPath: /tmp, subPath: tmp}}]
        {ready}
"
        ))
        .unwrap();
}

/// What a shell in the client's pod prints.
fn shell(space: &Space<'_>, script: &str) -> anyhow::Result<String> {
    let name = space.name.clone();
    space.mesh.cluster.exec(&name, "deployment/client", "app", &["/bin/sh", "-ec", script])
}

/// Waits until the client's sidecar knows the server: a Service is real a moment after its pods are ready.
fn reached(space: &Space<'_>, script: &str) {
    space.until("the server to be reached", || shell(space, script).map(Some)).unwrap();
}

/// A meshed client beside what a scenario is about.
fn client(space: &Space<'_>) {
    pod(space, "client", &[], "exec sleep 100000");
    space.rolled_out("deployment/client").unwrap();
}

/// The server's sidecar has seen the client by name, over mutual TLS.
fn vouched(space: &Space<'_>, server: &str, port: u16) {
    let entry = space
        .logged(&format!("app={server}"), |entry| {
            entry["direction"] == "inbound"
                && entry["security"] == "mutual_tls"
                && entry["dst.address"].as_str().is_some_and(|address| address.ends_with(&format!(":{port}")))
        })
        .unwrap();
    let client = format!("spiffe://cluster.local/ns/{}/sa/client", space.name);
    assert_eq!(entry["src.identity"], client, "{entry}");
}

#[test]
fn postgresql_answers_in_plain_and_in_tls_of_its_own() {
    let Some(mesh) = mesh() else { return };
    let space = mesh.meshed("postgresql").unwrap();
    let bin = postgresql();
    pod(
        &space,
        "postgresql",
        &[5432],
        &format!(
            "{bin}/initdb --pgdata=/data/db --username=app --auth=trust >/dev/null
             echo 'host all all all trust' >> /data/db/pg_hba.conf
             openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=postgresql -keyout /data/server.key -out /data/server.crt 2>/dev/null
             chmod 600 /data/server.key
             exec {bin}/postgres -D /data/db -k /data -c listen_addresses='*' -c ssl=on -c ssl_cert_file=/data/server.crt -c ssl_key_file=/data/server.key"
        ),
    );
    client(&space);
    space.rolled_out("deployment/postgresql").unwrap();
    let ask = |mode: &str, query: &str| {
        shell(
            &space,
            &format!(
                "{bin}/psql 'host=postgresql user=app dbname=postgres sslmode={mode} connect_timeout=10' -At -c \"{query}\""
            ),
        )
    };
    reached(&space, &format!("{bin}/pg_isready --host=postgresql"));
    let plain = ask("disable", "select ssl from pg_stat_ssl where pid = pg_backend_pid()");
    assert_eq!(plain.unwrap().trim(), "f");
    let tls = ask("require", "select ssl from pg_stat_ssl where pid = pg_backend_pid()");
    assert_eq!(tls.unwrap().trim(), "t");
    ask("require", "create table numbers as select generate_series(1, 200000) as n").unwrap();
    assert_eq!(ask("disable", "select count(*), sum(n) from numbers").unwrap().trim(), "200000|20000100000");
    let rows = ask("prefer", "select n from numbers order by n").unwrap();
    assert_eq!(rows.lines().count(), 200_000);
    vouched(&space, "postgresql", 5432);
}

#[test]
fn redis_keeps_what_it_was_given() {
    let Some(mesh) = mesh() else { return };
    let space = mesh.meshed("redis").unwrap();
    pod(
        &space,
        "redis",
        &[6379],
        "exec redis-server --dir /data --protected-mode no --save '' --bind '* -::*'",
    );
    client(&space);
    space.rolled_out("deployment/redis").unwrap();
    reached(&space, "redis-cli -h redis ping");
    let said = shell(
        &space,
        "head -c 3000000 /dev/zero | tr '\\0' x | redis-cli -h redis -x set big
         redis-cli -h redis strlen big
         for n in 1 2 3 4 5; do echo \"incr counter\"; done | redis-cli -h redis",
    )
    .unwrap();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["OK", "3000000", "1", "2", "3", "4", "5"]);
    vouched(&space, "redis", 6379);
}

#[test]
fn rabbitmq_hands_over_what_was_published() {
    let Some(mesh) = mesh() else { return };
    let space = mesh.meshed("rabbitmq").unwrap();
    pod(
        &space,
        "rabbitmq",
        &[5672],
        "echo 'loopback_users = none' > /data/rabbitmq.conf
         export RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_MNESIA_BASE=/data RABBITMQ_LOG_BASE=/data
         export RABBITMQ_CONFIG_FILE=/data/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=/data/plugins RABBITMQ_LOGS=-
         exec /usr/lib/rabbitmq/bin/rabbitmq-server",
    );
    client(&space);
    space.rolled_out("deployment/rabbitmq").unwrap();
    reached(&space, "amqp-declare-queue --server=rabbitmq --queue=orders --durable");
    let said = shell(
        &space,
        "amqp-publish --server=rabbitmq --routing-key=orders --body='one order'
         amqp-get --server=rabbitmq --queue=orders",
    )
    .unwrap();
    assert!(said.contains("one order"), "{said}");
    vouched(&space, "rabbitmq", 5672);
}
