//! What the demo does, step by step, and what it expects to see.
//!
//! Invariant: a step that differs is said so, and makes the run fail; no step is skipped.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::HeaderMap;

use super::fleet::Fleet;
use super::jaeger::Jaeger;
use super::place::{DENY, MANIFESTS};
use super::shop::get;
use super::table::{Edge, edges, render};
use super::traffic::{Tally, volley};

/// One step's outcome.
struct Step {
    title: &'static str,
    expected: String,
    seen: String,
    good: bool,
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing to standard output")
}

/// Prints the manifests that the control plane will watch.
pub(crate) fn introduce(manifests: &[PathBuf]) -> anyhow::Result<()> {
    let mut text = String::from("The mesh, as a user wrote it:\n");
    for path in manifests {
        let _ = writeln!(text, "\n--- {}", path.display());
        text.push_str(&std::fs::read_to_string(path)?);
    }
    say(&text)
}

/// Runs the script once; gives how many steps differ.
///
/// # Cancel safety
/// Dropping the future stops in the middle; the fleet's processes end with the fleet.
pub(crate) async fn once(fleet: &mut Fleet) -> anyhow::Result<usize> {
    let started = Instant::now();
    say("\nOne control plane, seven services, seven sidecars: all ready.\n")?;
    let mut failed = 0;
    for step in steps(fleet).await? {
        failed += usize::from(!step.good);
    }
    say(&format!("\n{}\n", render(&edges(fleet).await)))?;
    let verdict = if failed == 0 { "every step as expected" } else { "some steps differ" };
    say(&format!("{verdict}; {:.1} s\n", started.elapsed().as_secs_f64()))?;
    Ok(failed)
}

/// Runs the script with a live table between the steps, again and again until interrupted.
///
/// # Cancel safety
/// As [`once`].
pub(crate) async fn live(fleet: &mut Fleet) -> anyhow::Result<usize> {
    say("\nRunning until Ctrl-C.\n")?;
    loop {
        for _ in 0..SHOWS {
            let _ = volley(fleet.door(), SHOWN).await;
            say(&format!("\x1b[2J\x1b[H{}\n{}", render(&edges(fleet).await), fleet.hint()))?;
        }
        steps(fleet).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Screens of steady traffic between two runs of the script, and requests for each.
const SHOWS: usize = 10;
const SHOWN: usize = 200;

async fn steps(fleet: &mut Fleet) -> anyhow::Result<Vec<Step>> {
    let mut steps = vec![told(steady(fleet).await)?];
    if let Some(jaeger) = &fleet.jaeger {
        steps.push(told(traced(jaeger, fleet.door()).await?)?);
    }
    steps.push(told(canary(fleet).await?)?);
    steps.push(told(shifted(fleet).await?)?);
    steps.push(told(ejected(fleet).await?)?);
    steps.push(told(fallen_back(fleet).await?)?);
    steps.push(told(restored(fleet).await?)?);
    steps.push(told(denied(fleet).await?)?);
    steps.push(told(broken_edit(fleet).await?)?);
    steps.push(told(without_control_plane(fleet).await?)?);
    steps.push(told(control_plane_back(fleet).await?)?);
    Ok(steps)
}

fn told(step: Step) -> anyhow::Result<Step> {
    let mark = if step.good { "ok  " } else { "DIFF" };
    say(&format!("{mark} {}\n     expected: {}\n     seen:     {}\n", step.title, step.expected, step.seen))?;
    Ok(step)
}

async fn steady(fleet: &Fleet) -> Step {
    let tally = volley(fleet.door(), 200).await;
    let all = edges(fleet).await;
    let hops: Vec<&Edge> = all.iter().filter(|e| e.direction == "outbound" && e.requests > 0).collect();
    let secured = hops.iter().filter(|e| e.security == "mutual_tls" && e.destination_identity.is_some());
    let secured = secured.count();
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    let proven = all.iter().any(|e| e.direction == "inbound" && e.source_identity.as_deref() == Some(cart));
    Step {
        title: "steady traffic: shop → catalog, shop → cart → payments",
        expected: "200 of 200 answered; every hop between sidecars mTLS; payments knows the cart by name"
            .into(),
        seen: format!("{tally}; {secured} of {} hops mTLS; cart proven: {proven}", hops.len()),
        good: tally.good == 200 && secured == hops.len() && !hops.is_empty() && proven,
    }
}

async fn traced(jaeger: &Jaeger, door: SocketAddr) -> anyhow::Result<Step> {
    let told = jaeger.follow(door).await?;
    let names: Vec<&str> = told.servers.iter().map(String::as_str).collect();
    let seen = |name: &str| names.iter().any(|server| server.starts_with(name));
    Ok(Step {
        title: "traces: one request, read back from Jaeger",
        expected: "one trace through shop, catalog, cart and payments".into(),
        seen: format!("{} spans; served by {}: {}", told.spans, names.join(", "), told.url),
        good: ["shop", "catalog", "cart", "pay"].into_iter().all(seen),
    })
}

async fn canary(fleet: &Fleet) -> anyhow::Result<Step> {
    let tally = volley(fleet.door(), 400).await;
    let share = tally.catalog_percent("v2");
    Ok(Step {
        title: "canary: catalog-route.yaml sends 90 to v1 and 10 to v2",
        expected: "v2 answers 10 % (9 to 11)".into(),
        seen: format!("v2 answered {share:.2} %; {tally}"),
        good: tally.good == 400 && (9.0..=11.0).contains(&share),
    })
}

/// Writes a manifest as an editor does: aside, then renamed over the old one.
fn save(fleet: &Fleet, name: &str, text: &str) -> anyhow::Result<()> {
    let path = fleet.manifests().join(name);
    let aside = fleet.manifests().join(format!(".{name}.new"));
    std::fs::write(&aside, fleet.block.fill(text))?;
    std::fs::rename(&aside, &path).with_context(|| format!("saving {}", path.display()))
}

fn route() -> &'static str {
    MANIFESTS.iter().find(|(name, _)| *name == "catalog-route.yaml").map_or("", |(_, text)| text)
}

/// Waits until `holds` says so of a small volley; gives how long it took.
async fn until(fleet: &Fleet, holds: impl Fn(&Tally) -> bool) -> (Duration, bool) {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if holds(&volley(fleet.door(), 10).await) {
            return (started.elapsed(), true);
        }
    }
    (started.elapsed(), false)
}

/// Source: fifty times what the promise of 100 ms needs; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(5);

async fn shifted(fleet: &Fleet) -> anyhow::Result<Step> {
    let half = route().replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
    save(fleet, "catalog-route.yaml", &half)?;
    let (took, _) = until(fleet, |tally| tally.catalog.get("v2").copied().unwrap_or(0) >= 4).await;
    let tally = volley(fleet.door(), 400).await;
    let share = tally.catalog_percent("v2");
    Ok(Step {
        title: "edit: the same file says 50 and 50",
        expected: "v2 answers 50 % (48 to 52), no request fails".into(),
        seen: format!("after {} ms v2 answered {share:.2} %; {tally}", took.as_millis()),
        good: tally.good == 400 && (48.0..=52.0).contains(&share),
    })
}

async fn tell(fleet: &Fleet, pod: &str, what: &str) -> anyhow::Result<()> {
    let application = fleet.application(pod).with_context(|| format!("no pod {pod}"))?;
    get(&format!("{application}/{what}"), &HeaderMap::new()).await?;
    Ok(())
}

async fn payments(fleet: &Fleet) -> Option<Edge> {
    let mut all = edges(fleet).await;
    all.retain(|edge| edge.direction == "outbound" && edge.service.starts_with("shop/payments"));
    all.into_iter().max_by_key(|edge| edge.ejections)
}

async fn ejected(fleet: &Fleet) -> anyhow::Result<Step> {
    tell(fleet, "payments-0", "break").await?;
    let first = volley(fleet.door(), 60).await;
    // A failing replica is avoided before it is ejected, so its third failure may take a while.
    let started = Instant::now();
    let mut ejections = 0;
    while ejections == 0 && started.elapsed() < HEALING {
        let _ = volley(fleet.door(), 60).await;
        ejections = payments(fleet).await.map_or(0, |edge| edge.ejections);
    }
    let then = volley(fleet.door(), 60).await;
    let only_other = then.payments.get("payments-1").copied().unwrap_or(0);
    Ok(Step {
        title: "break: one replica of payments answers 503",
        expected: "the shop stays up; the replica is ejected after 3 failures; the other answers".into(),
        seen: format!("first: {first}; then: {then}; ejections {ejections}"),
        good: first.good == 60 && then.good == 60 && ejections >= 1 && only_other >= 57,
    })
}

async fn fallen_back(fleet: &Fleet) -> anyhow::Result<Step> {
    tell(fleet, "payments-1", "break").await?;
    let _ = volley(fleet.door(), 20).await;
    let tally = volley(fleet.door(), 60).await;
    let later = tally.payments.get("pay-later-0").copied().unwrap_or(0);
    Ok(Step {
        title: "break: the other replica too",
        expected: "the circuit opens; pay-later answers in its place; the shop stays up".into(),
        seen: tally.to_string(),
        good: tally.good == 60 && later >= 54,
    })
}

async fn restored(fleet: &Fleet) -> anyhow::Result<Step> {
    tell(fleet, "payments-0", "repair").await?;
    tell(fleet, "payments-1", "repair").await?;
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut both = false;
    while !both && started.elapsed() < HEALING {
        tally = volley(fleet.door(), 40).await;
        both = ["payments-0", "payments-1"].iter().all(|pod| tally.payments.contains_key(*pod))
            && !tally.payments.contains_key("pay-later-0");
    }
    Ok(Step {
        title: "repair: both replicas answer again",
        expected: "half-open probes bring both back; pay-later rests".into(),
        seen: format!("after {:.1} s: {tally}", started.elapsed().as_secs_f64()),
        good: both && tally.good == 40,
    })
}

/// Source: the manifest's base ejection of 2 s, doubled twice, and room to spare.
const HEALING: Duration = Duration::from_secs(20);

async fn denied(fleet: &Fleet) -> anyhow::Result<Step> {
    save(fleet, DENY.0, DENY.1)?;
    let (_, refused) = until(fleet, |tally| tally.catalog.get("status 403").copied() == Some(10)).await;
    let tally = volley(fleet.door(), 40).await;
    let logged = rule_in_log(fleet, "no-shop#shop-is-locked-out");
    std::fs::remove_file(fleet.manifests().join(DENY.0))?;
    let (_, back) = until(fleet, |tally| !tally.catalog.contains_key("status 403")).await;
    Ok(Step {
        title: "policy: deny-shop.yaml denies the shop the catalog, then is removed",
        expected: "403 and the rule named in the catalog's log; cart unaffected; then 200 again".into(),
        seen: format!("{tally}; rule in the log: {logged}; answered again: {back}"),
        good: refused && logged && back && tally.good == 40 && tally.paid() == 40,
    })
}

/// Whether a catalog sidecar's access log names the rule; the log's writer may be a moment behind.
fn rule_in_log(fleet: &Fleet, rule: &str) -> bool {
    ["catalog-v1-0", "catalog-v2-0"].iter().any(|pod| {
        let text = std::fs::read_to_string(fleet.folder.join(format!("{pod}.access.log")));
        text.is_ok_and(|text| text.contains(rule))
    })
}

async fn broken_edit(fleet: &Fleet) -> anyhow::Result<Step> {
    save(fleet, "catalog-route.yaml", "kind: HTTPRoute\n  spec: [this is no YAML\n")?;
    let said = status_mentions(fleet, "catalog-route.yaml").await;
    let tally = volley(fleet.door(), 100).await;
    let share = tally.catalog_percent("v2");
    save(fleet, "catalog-route.yaml", route())?;
    Ok(Step {
        title: "broken edit: catalog-route.yaml is no YAML for a while",
        expected: "nothing changes (50 %), nothing fails, and the control plane names the file".into(),
        seen: format!("v2 answered {share:.0} %; {tally}; named: {said}"),
        good: tally.good == 100 && (48.0..=52.0).contains(&share) && said,
    })
}

async fn status_mentions(fleet: &Fleet, file: &str) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(admin) = fleet.control_plane_admin
            && let Ok((_, body)) = get(&format!("{admin}/status"), &HeaderMap::new()).await
            && String::from_utf8_lossy(&body).contains(&format!("{file}:"))
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

async fn without_control_plane(fleet: &mut Fleet) -> anyhow::Result<Step> {
    fleet.kill_control_plane().await?;
    let tally = volley(fleet.door(), 400).await;
    Ok(Step {
        title: "outage: the control plane is killed",
        expected: "traffic goes on: 400 of 400 answered, all catalog and payments calls good".into(),
        seen: tally.to_string(),
        good: tally.good == 400 && tally.paid() == 400 && !tally.catalog.contains_key("status 503"),
    })
}

async fn control_plane_back(fleet: &mut Fleet) -> anyhow::Result<Step> {
    let none = route().replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 1");
    save(fleet, "catalog-route.yaml", &none)?;
    fleet.start_control_plane().await?;
    let started = Instant::now();
    let mut taken = false;
    while !taken && started.elapsed() < HEALING {
        taken = volley(fleet.door(), 10).await.catalog_percent("v2") > 99.0;
    }
    let tally = volley(fleet.door(), 100).await;
    save(fleet, "catalog-route.yaml", route())?;
    Ok(Step {
        title: "return: the control plane starts again, and the route was edited meanwhile",
        expected: "the sidecars come back by themselves and take the edit: all from v2".into(),
        seen: format!("after {:.1} s: {tally}", started.elapsed().as_secs_f64()),
        good: taken && tally.good == 100,
    })
}
