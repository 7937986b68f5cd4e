//! What counts as a change, and what keeps the last good state.

use super::*;
use crate::testing::Folder;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
}

fn names(look: Look) -> Vec<String> {
    match look {
        Look::Good(placed) => {
            placed.into_iter().map(|p| p.document.object.as_ref().unwrap().key().name).collect()
        }
        other => panic!("not good: {other:?}"),
    }
}

fn broken(look: Look) -> Vec<String> {
    match look {
        Look::Broken(problems) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("not broken: {other:?}"),
    }
}

#[test]
fn files_are_found_in_folders_and_only_by_their_ending() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path().join("shop/deep")).unwrap();
    fs::create_dir_all(folder.path().join(".git")).unwrap();
    for (path, name) in [("a.yaml", "a"), ("shop/b.yml", "b"), ("shop/deep/c.json", "c")] {
        let text = format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {{\"name\": \"{name}\"}}}}"
        );
        fs::write(folder.path().join(path), text).unwrap();
    }
    for path in ["README.md", ".git/x.yaml", ".hidden.yaml", "a.yaml~", "a.yaml.swp"] {
        fs::write(folder.path().join(path), "not: {a manifest").unwrap();
    }
    assert_eq!(names(Index::new(folder.path()).look(false)), ["a", "b", "c"]);
}

#[test]
fn a_touched_file_with_equal_bytes_is_no_change() {
    let folder = Folder::new();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a")).unwrap();
    let mut index = Index::new(folder.path());
    assert_eq!(names(index.look(false)), ["a"]);
    assert!(matches!(index.look(false), Look::Unchanged));
    files::write_atomically(&file, service("a").as_bytes(), 0o644).unwrap();
    assert!(matches!(index.look(false), Look::Unchanged));
    files::write_atomically(&file, service("b").as_bytes(), 0o644).unwrap();
    assert_eq!(names(index.look(false)), ["b"]);
    fs::remove_file(&file).unwrap();
    assert!(names(index.look(false)).is_empty());
}

#[test]
fn one_broken_document_keeps_everything_and_its_repair_takes_everything() {
    let folder = Folder::new();
    fs::write(folder.path().join("a.yaml"), service("a")).unwrap();
    let mut index = Index::new(folder.path());
    index.look(false);
    fs::write(folder.path().join("b.yaml"), format!("{}---\nkind: [", service("b"))).unwrap();
    fs::write(folder.path().join("a.yaml"), service("a2")).unwrap();
    let problems = broken(index.look(false));
    assert!(problems[0].starts_with("b.yaml:"), "{problems:?}");
    fs::write(folder.path().join("b.yaml"), service("b")).unwrap();
    assert_eq!(names(index.look(false)), ["a2", "b"]);
}

#[test]
fn one_object_in_two_places_names_both() {
    let folder = Folder::new();
    fs::write(folder.path().join("a.yaml"), format!("{}---\n{}", service("x"), service("y"))).unwrap();
    let explicit = "apiVersion: v1\nkind: Service\nmetadata: {name: y, namespace: default}\n";
    fs::write(folder.path().join("b.yaml"), explicit).unwrap();
    let problems = broken(Index::new(folder.path()).look(false));
    assert_eq!(problems, ["b.yaml:1: Service default/y: the same object stands in a.yaml:5"]);
}

#[test]
fn an_emptied_file_is_waited_for_and_then_believed() {
    let folder = Folder::new();
    let file = folder.path().join("a.yaml");
    fs::write(&file, service("a")).unwrap();
    let mut index = Index::new(folder.path());
    index.look(false);
    fs::write(&file, "").unwrap();
    assert!(matches!(index.look(false), Look::Writing));
    assert!(names(index.look(true)).is_empty());
}

#[test]
fn a_swapped_data_link_is_one_change() {
    let folder = Folder::new();
    let root = folder.path();
    for (version, name) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("a.yaml"), service(name)).unwrap();
    }
    std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let mut index = Index::new(root);
    assert_eq!(names(index.look(false)), ["old"]);
    std::os::unix::fs::symlink("..2", root.join("..next")).unwrap();
    fs::rename(root.join("..next"), root.join("..data")).unwrap();
    assert_eq!(names(index.look(false)), ["new"]);
}

#[test]
fn a_missing_folder_is_a_problem_and_no_empty_state() {
    let folder = Folder::new();
    fs::write(folder.path().join("a.yaml"), service("a")).unwrap();
    let mut index = Index::new(folder.path());
    index.look(false);
    fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(broken(index.look(false)).len(), 1);
}
