//! The page about Kubernetes does what it says: its commands are run as they stand, one block after the other,
//! on a cluster that has never seen a mesh.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

use std::path::{Path, PathBuf};

use weft_cluster::cluster::{Cluster, Options};
use weft_cluster::mesh::Programs;
use weft_cluster::skip;

const PAGE: &str = include_str!("../../../docs/kubernetes.md");

/// The blocks of the page that a reader types, with the line that each begins at.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (line, text) in (1..).zip(page.lines()) {
        match (&mut open, text) {
            (None, "```sh") => open = Some((line, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, block)), text) => {
                block.push_str(text);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

#[test]
fn every_command_of_the_page_works_in_order_on_a_fresh_cluster() {
    if let Some(reason) = skip::missing() {
        return skip::say(&reason);
    }
    let programs = Programs::shared().unwrap();
    let cluster = Cluster::start(&Options::new(&format!("page-{}", std::process::id()))).unwrap();
    cluster.install_gateway_api().unwrap();
    cluster.import_weft(programs).unwrap();
    let blocks = blocks(PAGE);
    assert!(blocks.len() > 8, "the page has lost its commands");
    for (line, block) in blocks {
        let weft = programs.file("weft");
        let path = format!("PATH={}:$PATH\ncd {}\n", folder_of(&weft).display(), root().display());
        // As in a terminal, what follows a pipe decides; unlike there, the first failure ends the block.
        let script = format!("set -eu\n{path}{block}");
        let output = cluster.command("bash").args(["-c", &script]).output().unwrap();
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("--- docs/kubernetes.md:{line}\n{block}---\n{said}{wrong}");
        assert!(
            output.status.success(),
            "docs/kubernetes.md:{line} fails: {}\n{}",
            output.status,
            cluster.picture("shop")
        );
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
