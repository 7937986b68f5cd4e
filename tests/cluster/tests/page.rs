//! The pages about Kubernetes and about looking do what they say: their commands are run as they stand, one block
//! after the other, on a cluster that has never seen a mesh.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's own helpers may fail the test")]

use std::path::{Path, PathBuf};

use weft_cluster::cluster::{Cluster, Options};
use weft_cluster::mesh::Programs;
use weft_cluster::skip;

/// The pages, in the order in which a reader follows them: the second stands on what the first has set up, before
/// the first ends with how to leave.
const PAGES: [(&str, &str); 2] = [
    ("docs/kubernetes.md", include_str!("../../../docs/kubernetes.md")),
    ("docs/observing.md", include_str!("../../../docs/observing.md")),
];
/// Where the first page begins to take down what it has set up.
const LEAVING: &str = "## Upgrade and leave";

/// All blocks: page, line, commands.
fn steps() -> Vec<(&'static str, usize, String)> {
    let [(first, page), (second, looking)] = PAGES;
    let leaving = 1 + page.lines().position(|line| line == LEAVING).expect("the page says how to leave");
    let of = |name: &'static str, page: &str| -> Vec<_> {
        blocks(page).into_iter().map(|(line, block)| (name, line, block)).collect()
    };
    let (before, after): (Vec<_>, Vec<_>) =
        of(first, page).into_iter().partition(|(_, line, _)| *line < leaving);
    [before, of(second, looking), after].concat()
}

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
fn every_command_of_the_pages_works_in_order_on_a_fresh_cluster() {
    if let Some(reason) = skip::missing() {
        return skip::say(&reason);
    }
    let programs = Programs::shared().unwrap();
    let cluster = Cluster::start(&Options::new(&format!("page-{}", std::process::id()))).unwrap();
    cluster.install_gateway_api().unwrap();
    cluster.import_weft(programs).unwrap();
    let steps = steps();
    assert!(steps.len() > 16, "the pages have lost their commands");
    for (page, line, block) in steps {
        let weft = programs.file("weft");
        let path = format!("PATH={}:$PATH\ncd {}\n", folder_of(&weft).display(), root().display());
        // As in a terminal, what follows a pipe decides; unlike there, the first failure ends the block.
        let script = format!("set -eu\n{path}{block}");
        let output = cluster.command("bash").args(["-c", &script]).output().unwrap();
        let (said, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("--- {page}:{line}\n{block}---\n{said}{wrong}");
        assert!(
            output.status.success(),
            "{page}:{line} fails: {}\n{}",
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
