//! Who may call whom, by service account.

use serde_json::{Value, json};
use weft_cluster::scenario::{App, Space, field};

fn policy(action: &str, account: &str) -> String {
    format!(
        "
apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: callers}}
spec:
  targetRefs: [{{kind: Workload, selector: {{app: server}}}}]
  action: {action}
  rules: [{{name: by-account, from: [{{serviceAccounts: [{account}]}}]}}]
"
    )
}

/// Waits until one client is served and the other is not.
fn only(space: &Space<'_>, served: &str, denied: &str) -> weft_cluster::scenario::Answer {
    let ask = |client: &str| space.get(&format!("deployment/{client}-v1"), "http://server/vault", &[]);
    space
        .until(&format!("{served} to be served and {denied} to be denied"), || {
            let (good, bad) = (ask(served)?, ask(denied)?);
            if good.status() == Some(200) && bad.status() == Some(403) {
                return Ok(Some(bad));
            }
            anyhow::bail!("{good:?}\n{bad:?}")
        })
        .unwrap()
}

#[test]
fn a_service_account_is_allowed_another_is_denied_and_the_denial_names_the_policy() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("accounts").unwrap();
    space.run(&[App::new("server").replicas(2), App::new("friend"), App::new("foe")]).unwrap();

    space.apply(&policy("Allow", "friend")).unwrap();
    only(&space, "friend", "foe");
    let denied = space.logged("app=server", |entry| entry["http.status"] == 403).unwrap();
    assert!(denied["reason"].as_str().is_some_and(|reason| reason.starts_with("denied")), "{denied}");
    assert_eq!(denied["policy"], "accounts/callers", "no rule allows it: {denied}");
    assert_eq!(denied["src.identity"], "spiffe://cluster.local/ns/accounts/sa/foe", "{denied}");

    space.apply(&policy("Deny", "friend")).unwrap();
    let answer = only(&space, "foe", "friend");
    assert!(answer.told("pod").is_empty(), "the application never saw it: {answer:?}");
    let denied = space
        .logged("app=server", |entry| {
            entry["http.status"] == 403
                && entry["src.identity"] == "spiffe://cluster.local/ns/accounts/sa/friend"
        })
        .unwrap();
    let named = denied["policy"].as_str().unwrap_or_default();
    assert!(named.contains("accounts/callers") && named.contains("by-account"), "{denied}");

    let status = space
        .until("the policy's status", || {
            let object = space.object("authorizationpolicy/callers")?;
            let status = field(&object, "status").clone();
            if field(&status, "observedGeneration") == field(&object, "metadata.generation")
                && field(&status, "sidecars.applied") == &json!(2)
            {
                return Ok(Some(status));
            }
            anyhow::bail!("{status}")
        })
        .unwrap();
    assert_eq!(field(&status, "sidecars.total"), &json!(2), "{status}");
    assert_eq!(accepted(&status), ("True", "Accepted"), "{status}");
    let target = field(&status, "targets.0");
    assert_eq!(target["targetRef"], json!({"kind": "Workload", "selector": {"app": "server"}}), "{status}");
    assert_eq!(accepted(target), ("True", "Accepted"), "{status}");
    let table = space.kubectl(&["get", "authz", "callers"]).unwrap();
    assert!(table.contains("ACCEPTED") && table.contains("True"), "{table}");

    space.kubectl(&["delete", "authorizationpolicy", "callers"]).unwrap();
    space
        .get_until("deployment/friend-v1", "http://server/", &[], |answer| answer.status() == Some(200))
        .unwrap();
}

#[test]
fn a_policy_without_its_service_says_so() {
    let Some(mesh) = super::mesh() else { return };
    let space = mesh.meshed("untargeted").unwrap();
    space
        .apply(
            "{apiVersion: weft.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {name: lost},
              spec: {targetRefs: [{kind: Service, name: nobody}], action: Deny, rules: [{}]}}",
        )
        .unwrap();
    let status = space
        .until("the policy's status", || {
            let status = field(&space.object("authorizationpolicy/lost")?, "status").clone();
            Ok((accepted(&status).0 == "False").then_some(status))
        })
        .unwrap();
    assert_eq!(accepted(&status), ("False", "TargetNotFound"), "{status}");
    assert!(field(&status, "conditions.0.message").as_str().unwrap().contains("nobody"), "{status}");
}

fn accepted(of: &Value) -> (&str, &str) {
    let conditions = field(of, "conditions").as_array().map(Vec::as_slice).unwrap_or_default();
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
    let text = |name: &str| accepted.and_then(|one| one[name].as_str()).unwrap_or_default();
    (text("status"), text("reason"))
}
