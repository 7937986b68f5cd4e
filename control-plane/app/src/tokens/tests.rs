//! What a token file grants, and what it refuses.

use super::*;
use crate::testing::Folder;

const NOW: u64 = 1_800_000_000;

fn open(text: &str) -> Result<(Folder, Tokens), String> {
    let folder = Folder::new();
    let file = folder.path().join("tokens.yaml");
    files::write_atomically(&file, text.as_bytes(), 0o600).unwrap();
    let tokens = Tokens::open(Some(&file), None)?;
    Ok((folder, tokens))
}

#[test]
fn a_token_speaks_for_the_workload_it_names() {
    let (_folder, tokens) = open("- {token: 0123456789abcdef, workload: shop/cart-0}\n").unwrap();
    let grant = tokens.grant("0123456789abcdef", NOW).unwrap();
    assert_eq!(grant.workload, Some("shop/cart-0".parse().unwrap()));
    assert_eq!(tokens.grant("0123456789abcdeF", NOW), Err(TokenError::Unknown));
    assert_eq!(tokens.grant("", NOW), Err(TokenError::Unknown));
}

#[test]
fn a_hashed_token_is_as_good_as_a_plain_one() {
    let hash = hex(&hash_of("correct horse battery"));
    let (_folder, tokens) =
        open(&format!("- {{tokenSha256: \"{hash}\", serviceAccount: shop/cart}}\n")).unwrap();
    let grant = tokens.grant("correct horse battery", NOW).unwrap();
    let account = ServiceAccount { namespace: "shop".to_owned(), name: "cart".to_owned() };
    assert_eq!(grant.service_account, Some(account));
}

#[test]
fn a_token_without_limits_is_good_for_one_use() {
    let (_folder, mut tokens) = open("- {token: 0123456789abcdef, workload: shop/cart-0}\n").unwrap();
    let grant = tokens.grant("0123456789abcdef", NOW).unwrap();
    tokens.spend(&grant).unwrap();
    assert_eq!(tokens.grant("0123456789abcdef", NOW), Err(TokenError::Used));
    assert_eq!(tokens.spend(&grant), Err(TokenError::Used));
}

#[test]
fn an_expiring_token_serves_until_its_hour() {
    let text = "- {token: 0123456789abcdef, workload: shop/cart-0, expires: \"2027-01-15T08:00:00Z\"}\n";
    let (_folder, mut tokens) = open(text).unwrap();
    for _ in 0..3 {
        let grant = tokens.grant("0123456789abcdef", NOW - 1).unwrap();
        tokens.spend(&grant).unwrap();
    }
    assert_eq!(tokens.grant("0123456789abcdef", NOW), Err(TokenError::Expired));
}

#[test]
fn uses_survive_a_restart_when_there_is_a_state_directory() {
    let folder = Folder::new();
    let file = folder.path().join("tokens.yaml");
    std::fs::write(&file, "- {token: 0123456789abcdef, workload: shop/cart-0, uses: 2}\n").unwrap();
    for _ in 0..2 {
        let mut tokens = Tokens::open(Some(&file), Some(folder.path())).unwrap();
        let grant = tokens.grant("0123456789abcdef", NOW).unwrap();
        tokens.spend(&grant).unwrap();
    }
    let tokens = Tokens::open(Some(&file), Some(folder.path())).unwrap();
    assert_eq!(tokens.grant("0123456789abcdef", NOW), Err(TokenError::Used));
}

#[test]
fn a_broken_reload_keeps_the_list_and_a_good_one_replaces_it() {
    let (folder, mut tokens) = open("- {token: 0123456789abcdef, workload: shop/cart-0}\n").unwrap();
    let file = folder.path().join("tokens.yaml");
    files::write_atomically(&file, b"- {token: 0123456789abcdef, workload: [}\n", 0o600).unwrap();
    let reason = tokens.reload().unwrap_err();
    assert!(!reason.contains("0123456789abcdef"), "{reason}");
    assert!(tokens.grant("0123456789abcdef", NOW).is_ok());
    files::write_atomically(&file, b"- {token: another-token-of-mine, workload: shop/cart-1}\n", 0o600)
        .unwrap();
    tokens.reload().unwrap();
    assert!(tokens.grant("0123456789abcdef", NOW).is_err());
    assert!(tokens.grant("another-token-of-mine", NOW).is_ok());
}

#[test]
fn senseless_entries_are_refused_with_their_number() {
    for (text, expected) in [
        ("- {token: short, workload: a/b}", "at least 16"),
        ("- {token: 0123456789abcdef}", "workload or serviceAccount"),
        ("- {workload: a/b}", "token or tokenSha256"),
        ("- {token: 0123456789abcdef, tokenSha256: ab, workload: a/b}", "not both"),
        ("- {tokenSha256: zz, workload: a/b}", "64 hexadecimal"),
        ("- {token: 0123456789abcdef, workload: nonsense}", "workload"),
        ("- {token: 0123456789abcdef, serviceAccount: nonsense}", "service account"),
        ("- {token: 0123456789abcdef, workload: a/b, useless: 1}", "line 1"),
        ("- &t {token: 0123456789abcdef, workload: a/b}\n- *t", "two entries"),
    ] {
        let reason = open(text).map(|_| ()).unwrap_err();
        assert!(reason.contains(expected), "{text}: {reason}");
    }
}
