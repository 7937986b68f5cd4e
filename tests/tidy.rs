//! The repository keeps the house's rules: whatever a machine can check of ARCHITECTURE.md is checked here.
//!
//! The rules and the tests that show that each can fail are in `weft_tests::tidy`; what is still too
//! large is listed in `tidy.exceptions`, which may only shrink.

use std::path::Path;

use weft_tests::tidy::{Tree, exceptions, findings, modules::Modules, sizes};

fn tree() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Tree::read(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()))
}

#[test]
fn the_tree_keeps_the_rules_of_the_house() {
    let tree = tree();
    assert!(tree.ending(".rs").count() > 10, "there is no tree here");
    for file in sizes::long_files(&tree, &Modules::of(&tree)) {
        eprintln!("growing: {file}");
    }
    let list = tree.text("tests/tidy.exceptions").unwrap_or_default();
    let left = exceptions::apply(list, findings(&tree));
    let said: Vec<String> = left.iter().map(ToString::to_string).collect();
    assert!(left.is_empty(), "{} findings:\n{}", said.len(), said.join("\n"));
}

#[test]
fn a_reader_finds_a_readme_and_a_map() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        assert!(tree().has(document), "there is no {document}");
    }
}
