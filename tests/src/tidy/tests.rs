//! Each rule, shown a tree that breaks it and one that keeps it.

use super::exceptions::apply;
use super::modules::{Modules, Role};
use super::*;

/// A crate that keeps every rule, for others to be added to.
const MANIFEST: (&str, &str) =
    ("proxy/core/Cargo.toml", "[package]\nname = \"x\"\n[dependencies]\nbytes.workspace = true\n");
const HEADER: &str = "//! What this file is for.\n";

fn found(files: &[(&str, &str)], rule: &str) -> Vec<String> {
    let all = findings(&Tree::of(files));
    all.iter().filter(|finding| finding.rule == rule).map(|finding| finding.place.clone()).collect()
}

fn in_core(text: &str, rule: &str) -> Vec<String> {
    found(&[MANIFEST, ("proxy/core/src/lib.rs", &format!("{HEADER}{text}"))], rule)
}

#[test]
fn a_tree_that_keeps_the_rules_has_no_findings() {
    let tree = Tree::of(&[
        MANIFEST,
        ("proxy/core/src/lib.rs", "//! What this file is for.\nmod a;\n#[cfg(test)]\nmod tests;\n"),
        ("proxy/core/src/a.rs", "//! What this file is for.\nfn a() {}\n"),
        ("proxy/core/src/tests.rs", "//! What this file is for.\nfn a() { std::fs::read(x); }\n"),
    ]);
    assert_eq!(findings(&tree), []);
}

#[test]
fn an_import_against_the_direction_is_found_wherever_the_manifest_hides_it() {
    for section in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.dependencies"] {
        for line in ["weft-control-plane.workspace = true", "x = { package = \"weft-control-plane\" }"] {
            let manifest = format!("[{section}]\n{line}\n");
            assert_eq!(found(&[("proxy/app/Cargo.toml", &manifest)], "import").len(), 1, "{manifest}");
            assert!(found(&[("tests/Cargo.toml", &manifest)], "import").is_empty());
        }
    }
    let manifest = "[dependencies.weft-proxy-net]\npath = \"../net\"\n";
    assert_eq!(found(&[("proxy/core/Cargo.toml", manifest)], "import"), ["proxy/core/Cargo.toml"]);
    assert!(found(&[("proxy/app/Cargo.toml", manifest)], "import").is_empty());
    let new = [("surprise/Cargo.toml", "[dependencies]\nweft-proto.workspace = true\n")];
    assert_eq!(found(&new, "import").len(), 1, "a crate without a row imports nothing of ours");
}

#[test]
fn a_core_with_a_runtime_a_clock_or_a_socket_is_found() {
    for name in ["tokio", "tokio-util", "hyper", "kube-runtime", "tonic", "prost", "rand"] {
        let manifest = format!("[dependencies]\n{name}.workspace = true\n");
        assert_eq!(found(&[("control-plane/core/Cargo.toml", &manifest)], "core").len(), 1, "{name}");
        assert!(found(&[("control-plane/app/Cargo.toml", &manifest)], "core").is_empty());
    }
    for text in
        ["fn a() { std::time::Instant::now(); }", "use std::net::TcpStream;", "fn a() { std::env::var(x) }"]
    {
        assert!(!in_core(text, "core").is_empty(), "{text}");
    }
    assert!(in_core("/// Never `Instant::now`.\nfn a() { b(\"std::env\") }", "core").is_empty());
    assert!(in_core("#[cfg(test)]\nmod tests { fn a() { std::env::var(x) } }", "core").is_empty());
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let lines = "const A: u8 = 0;\n".repeat(sizes::FILE_LIMIT);
    assert_eq!(in_core(&lines, "file"), ["proxy/core/src/lib.rs"]);
    assert!(in_core(&format!("#[cfg(test)]\nmod tests {{\n{lines}}}\n"), "file").is_empty());
}

#[test]
fn a_long_function_is_found_by_name() {
    let function =
        |name: &str, lines: usize| format!("fn {name}(a: [u8; 2]) {{\n{}}}\n", "a();\n".repeat(lines));
    let text = function("short", sizes::FUNCTION_LIMIT) + &function("long", sizes::FUNCTION_LIMIT + 1);
    assert_eq!(in_core(&text, "function"), ["proxy/core/src/lib.rs:long"]);
    let commented = format!("fn a() {{\n{}}}\n", "// why\n\n".repeat(90));
    assert!(in_core(&commented, "function").is_empty());
    assert!(in_core(&format!("#[cfg(test)]\nmod tests {{ {} }}", function("a", 90)), "function").is_empty());
}

#[test]
fn a_file_without_a_header_or_with_a_word_for_one_is_found() {
    for text in ["", "fn a() {}\n", "//! Placeholder.\n", "// What this file is for.\n"] {
        let files = [MANIFEST, ("proxy/core/src/lib.rs", text)];
        assert_eq!(found(&files, "header"), ["proxy/core/src/lib.rs"], "{text:?}");
    }
}

#[test]
fn a_file_that_no_target_reaches_is_found() {
    let files = |lib: &'static str| {
        [
            MANIFEST,
            ("proxy/core/src/lib.rs", lib),
            ("proxy/core/src/a.rs", HEADER),
            ("proxy/core/src/a/b.rs", HEADER),
        ]
    };
    let both = ["proxy/core/src/a.rs", "proxy/core/src/a/b.rs"];
    assert_eq!(found(&files("//! What this is for.\n// mod a;\n"), "orphan"), both);
    assert_eq!(found(&files("//! What this is for.\nmod a;\n"), "orphan"), ["proxy/core/src/a/b.rs"]);
    assert!(
        found(&files("//! What this is for.\nmod a;\n#[path = \"a/b.rs\"]\nmod c;\n"), "orphan").is_empty()
    );
}

#[test]
fn targets_are_found_by_name_and_by_place_and_tests_are_known() {
    let tree = Tree::of(&[
        ("tests/Cargo.toml", "[[test]]\nname = \"walk\"\npath = \"walk.rs\"\n"),
        ("tests/walk.rs", "mod common;"),
        ("tests/common.rs", ""),
        ("tests/src/bin/x.rs", ""),
        ("proxy/app/Cargo.toml", ""),
        ("proxy/app/src/main.rs", "#[cfg(test)]\nmod tests;\nmod a;"),
        ("proxy/app/src/a.rs", "mod b;"),
        ("proxy/app/src/a/b/mod.rs", "mod c;"),
        ("proxy/app/src/a/b/c.rs", ""),
        ("proxy/app/src/tests.rs", ""),
    ]);
    let modules = Modules::of(&tree);
    assert_eq!(modules.orphans(&tree), []);
    for path in ["tests/walk.rs", "tests/common.rs", "proxy/app/src/tests.rs"] {
        assert_eq!(modules.role(path), Some(Role::Test), "{path}");
    }
    for path in ["tests/src/bin/x.rs", "proxy/app/src/a/b/c.rs"] {
        assert_eq!(modules.role(path), Some(Role::Production), "{path}");
    }
}

#[test]
fn marks_of_unfinished_work_are_found_in_code_and_not_in_words() {
    for text in [
        "fn a() { todo!() }",
        "fn a() { dbg!(1); }",
        "#[ignore]\nfn a() {}",
        "fn a() { unimplemented!(\"x\") }",
    ] {
        assert_eq!(
            in_core(text, "unfinished"),
            ["proxy/core/src/lib.rs:2"].map(|place| place.to_owned()),
            "{text}"
        );
    }
    assert!(in_core("// todo!\nconst A: &str = \"todo!()\";", "unfinished").is_empty());
}

#[test]
fn a_sleeping_test_is_found_and_a_sleeping_program_is_not() {
    let sleep = "fn a() { std::thread::sleep(b); tokio::time::sleep(b).await; }";
    assert!(in_core(sleep, "sleep").is_empty());
    assert_eq!(in_core(&format!("#[cfg(test)]\nmod tests {{ {sleep} }}"), "sleep").len(), 1);
    assert_eq!(found(&[("tests/src/x.rs", sleep)], "sleep"), ["tests/src/x.rs"]);
    assert!(found(&[("tests/src/x.rs", "fn sleep() { self.sleep(1); asleep(2); }")], "sleep").is_empty());
}

#[test]
fn an_unexplained_part_of_the_contract_is_found() {
    let contract = |text: &str| found(&[("proto/a.proto", text)], "contract");
    assert!(contract("syntax = \"proto3\";\n// A.\nmessage A {\n  // B.\n  uint32 b = 1;\n}\n").is_empty());
    assert_eq!(contract("// A.\nmessage A {\n  uint32 b = 1;\n}\n"), ["proto/a.proto:3"]);
    assert_eq!(
        contract("// A.\nmessage A {\n  // B.\n  uint32 b = 1;\n  uint32 c = 2;\n}\n"),
        ["proto/a.proto:5"]
    );
    assert_eq!(contract("enum A {\n}\n"), ["proto/a.proto:1"]);
    assert_eq!(contract("// S.\nservice S {\n  rpc Call(A) returns (B);\n}\n"), ["proto/a.proto:3"]);
}

#[test]
fn a_link_or_a_name_that_leads_nowhere_is_found() {
    let readme = "[a](proxy/core) [b](./gone.md#x) [c](https://x.y) `proxy/core/src/lib.rs` `gone.rs` `a::b`\n`weft demo`\n";
    let files = [MANIFEST, ("proxy/core/src/lib.rs", HEADER), ("README.md", readme)];
    assert_eq!(found(&files, "link"), ["README.md:1", "README.md:1"]);
}

#[test]
fn a_map_that_walks_in_another_order_is_found() {
    let section = |steps: &[&str]| {
        steps.iter().map(|step| format!("- `proxy/{step}.rs` does it\n")).collect::<String>()
    };
    let request = ["accept", "identify", "detect", "authorize", "route", "balance", "connect", "relay"];
    let config = ["watch", "index", "compile", "publish", "serve", "subscribe", "adopt"];
    let mut mixed = request;
    mixed.swap(1, 2);
    let map = |request: &[&str]| {
        format!(
            "# Map\n## The request's walk\n{}\n## The configuration's walk\n{}",
            section(request),
            section(&config)
        )
    };
    assert!(found(&[("ARCHITECTURE.md", &map(&request))], "walk").is_empty());
    assert_eq!(found(&[("ARCHITECTURE.md", &map(&mixed))], "walk").len(), 1);
    assert_eq!(found(&[("ARCHITECTURE.md", &map(&request[..7]))], "walk").len(), 1);
}

#[test]
fn exceptions_may_only_shrink() {
    let long = |count| Finding { count, ..Finding::new("a.rs:f", "function", "long") };
    let header = Finding::new("a.rs", "header", "none");
    let left = |list: &str, findings: Vec<Finding>| -> Vec<&'static str> {
        apply(list, findings).into_iter().map(|finding| finding.rule).collect()
    };
    let entry = "function a.rs:f 80 one step a line";
    assert!(left(&format!("# why\n{entry} # more\n"), vec![long(80)]).is_empty());
    assert_eq!(left(entry, vec![long(81)]), ["function"], "it grew");
    assert_eq!(left(entry, vec![long(79)]), ["exception"], "it shrank");
    assert_eq!(left(entry, vec![]), ["exception"], "it went");
    assert_eq!(left(&format!("{entry}\n{entry}"), vec![long(80)]), ["exception"], "it is there twice");
    assert_eq!(left("header a.rs 1 because we can", vec![header]), ["exception", "header"]);
    assert_eq!(left("function a.rs:f 80", vec![long(80)]), ["exception", "function"], "no reason");
    assert_eq!(left("function a.rs:f x one step", vec![long(80)]), ["exception", "function"], "no count");
}

#[test]
fn strings_comments_lifetimes_and_characters_do_not_mislead_the_count_of_braces() {
    let text = r##"fn a<'x>(b: &'x str) { /* { /* } */ { */ let _ = ('{', '\'', "\"{", r#"{"{"#, b"{", b'{'); } // {"##;
    let code = source::code(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.matches('{').count(), 1);
    assert_eq!(code.matches('}').count(), 1);
    assert_eq!(source::functions(&code), [source::Function { name: "a", lines: 1 }]);
}
