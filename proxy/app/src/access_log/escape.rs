//! Foreign text inside a JSON string.
//!
//! Invariant: no foreign byte can end the string, or reach a terminal as a control or direction character.

use std::io::Write as _;

/// Writes text inside a JSON string.
pub(super) fn escape(out: &mut Vec<u8>, text: &str) {
    // Nearly all text is: one look over its bytes, and one copy.
    if is_plain(text.as_bytes()) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut from = 0;
    for (at, character) in text.char_indices() {
        let plain = match character {
            '"' | '\\' => false,
            ' '..='~' => true,
            _ => character as u32 > 0x9f && !is_steering(character),
        };
        if plain {
            continue;
        }
        out.extend_from_slice(text.get(from..at).unwrap_or_default().as_bytes());
        from = at + character.len_utf8();
        // A vector takes every byte.
        let _ = match character {
            '"' => out.write_all(b"\\\""),
            '\\' => out.write_all(b"\\\\"),
            _ => write!(out, "\\u{:04x}", character as u32),
        };
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default().as_bytes());
}

/// Whether every byte stands for itself. Looks at all of them, which processors do many at once.
fn is_plain(text: &[u8]) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    text.iter().fold(true, |all, byte| all & plain(*byte))
}

/// Line separators and marks that turn the direction of text.
///
/// Source: Unicode TR #36 §2.6 and TR #9; all are within the basic plane.
fn is_steering(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_leave_its_string() {
        for text in [
            "/plain/path",
            "\",\"http.status\":200,\"x\":\"",
            "back\\slash\\",
            "line\nfeed\r\u{1b}[31mred\u{7f}\0",
            "\u{85}\u{9b}\u{2028}\u{202e}txt\u{2066}\u{feff}",
            "grüße/世界/🦀",
        ] {
            let mut out = b"\"".to_vec();
            escape(&mut out, text);
            out.push(b'"');
            let line = String::from_utf8(out).unwrap();
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            assert!(!line.chars().any(|c| c.is_control() || is_steering(c)), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_text_comes_back_from_its_string(text in ".*") {
            let mut out = b"\"".to_vec();
            escape(&mut out, &text);
            out.push(b'"');
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
