//! Paths: one canonical form, or refused.

use super::*;
use proptest::prelude::*;

#[test]
fn paths_have_one_canonical_form_or_are_refused() {
    let rows: [(&str, Option<&str>); 50] = [
        ("/", Some("/")),
        ("", Some("")),
        ("*", Some("*")),
        ("/a/b", Some("/a/b")),
        ("/a/b/", Some("/a/b/")),
        ("/a;v=1", Some("/a;v=1")),
        ("/a:b@c!$&'()*+,=", Some("/a:b@c!$&'()*+,=")),
        ("/.well-known/x", Some("/.well-known/x")),
        ("/...", Some("/...")),
        ("/a./b", Some("/a./b")),
        ("/a..b", Some("/a..b")),
        ("/ünï", Some("/ünï")),
        // one form for equal meanings
        ("/%61dmin", Some("/admin")),
        ("/%41%2D%5F%7e", Some("/A-_~")),
        ("/caf%c3%a9", Some("/caf%C3%A9")),
        ("/a%20b", Some("/a%20b")),
        ("/a%2fb", Some("/a%2Fb")),
        ("//a///b//", Some("/a/b/")),
        ("/%2561", Some("/%2561")),
        ("/%2ewell-known", Some("/.well-known")),
        // refused: readers disagree
        ("/a/../b", None),
        ("/a/./b", None),
        ("/..", None),
        ("/.", None),
        ("/a/..", None),
        ("/%2e%2e/b", None),
        ("/%2E/b", None),
        ("/.%2e/b", None),
        ("/a/..;/b", None),
        ("/a/..;x=1/b", None),
        ("/a/.;/b", None),
        ("/a%2f..%2fb", None),
        ("/a%2F%2e%2e%2fb", None),
        ("/a/..%2fb", None),
        ("/a\\b", None),
        ("/a%5cb", None),
        ("/a%5Cb", None),
        ("/a%00", None),
        ("/a%0d%0ab", None),
        ("/a%7f", None),
        ("/a%1f", None),
        ("/a b", None),
        ("/a\0", None),
        ("/a\tb", None),
        ("/a#b", None),
        ("/a%", None),
        ("/a%2", None),
        ("/a%zz", None),
        ("a/b", None),
        ("http://x/", None),
    ];
    for (path, expected) in rows {
        assert_eq!(canonical(path).ok().as_deref(), expected, "{path:?}");
    }
}

#[test]
fn a_path_in_canonical_form_is_borrowed() {
    for path in ["/", "/a/b", "/.well-known/x", "/a%2Fb"] {
        assert!(matches!(canonical(path), Ok(Cow::Borrowed(_))), "{path}");
    }
}

#[test]
fn paths_that_backends_read_differently_are_ambiguous() {
    for path in ["/a%2fb", "/a%2Fb", "/a;b", "/a/;x/b", "/%252e", "/%2541"] {
        assert!(is_ambiguous(path), "{path}");
    }
    for path in ["/", "/a/b", "//a", "/a%20b", "/%61", "/100%25", "/%25zz"] {
        assert!(!is_ambiguous(path), "{path}");
    }
}

#[test]
fn query_components_are_decoded_and_broken_escapes_stay() {
    for (sent, meant) in
        [("a+b", "a b"), ("a%20b", "a b"), ("%41%2b", "A+"), ("%4", "%4"), ("%zz%41", "%zzA")]
    {
        assert!(decoded(sent.as_bytes()).eq(meant.bytes()), "{sent}");
    }
}

proptest! {
    #[test]
    fn canonical_forms_are_their_own_canonical_form(path in "/[a-c./%;2eEfF5cC\\\\]{0,24}") {
        if let Ok(once) = canonical(&path) {
            let again = canonical(&once).map(Cow::into_owned);
            prop_assert_eq!(again, Ok(once.to_string()));
            prop_assert_eq!(is_ambiguous(&once), is_ambiguous(&path));
        }
    }

    #[test]
    fn no_canonical_form_holds_a_dot_segment(path in "/[.a/%2eEfF;]{0,16}") {
        if let Ok(form) = canonical(&path) {
            let decoded: Vec<u8> = decoded(form.as_bytes()).collect();
            let text = String::from_utf8_lossy(&decoded).into_owned();
            prop_assert!(!text.split('/').any(|s| matches!(s.split(';').next(), Some("." | ".."))), "{} -> {}", path, form);
            prop_assert!(!form.contains("//"));
        }
    }

    #[test]
    fn any_text_is_answered(path in ".{0,40}") {
        let _ = canonical(&path);
        let _ = is_ambiguous(&path);
    }
}
