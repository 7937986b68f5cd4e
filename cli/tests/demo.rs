//! The demo as a person runs it, with a real Jaeger beside it. Its other steps judge themselves, some by shares
//! and times that a busy machine misses; here only the trace counts.

use std::process::Command;

use weft_cluster::{part, skip};

#[test]
fn the_demo_leads_to_a_trace_in_a_real_jaeger() {
    let jaeger = match part::JAEGER.folder() {
        Ok(folder) => folder.join("jaeger"),
        Err(error) => return skip::say(&format!("{error:#}")),
    };
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["demo", "--once", "--jaeger"])
        .arg(jaeger)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // After the manifests, which are pages of text.
    let (_, steps) = said.split_once("all ready.").unwrap_or_else(|| panic!("it does not start: {errors}"));
    let step = steps.split("ok   traces: one request, read back from Jaeger").nth(1);
    let step = step.unwrap_or_else(|| panic!("{errors}{steps}"));
    let seen = step.lines().find(|line| line.contains("seen:")).unwrap();
    for server in ["shop-0", "catalog-v", "cart-0", "pay", ":16686/trace/"] {
        assert!(seen.contains(server), "{seen}");
    }
}

#[test]
fn a_jaeger_that_is_not_there_is_answered_with_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["demo", "--once", "--jaeger", "/nowhere/jaeger"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cargo dev parts jaeger") && said.contains("--otlp URL"), "{said}");
}
