//! The line of a field in a file, by its path: `spec.rules[1].matches[0].headers[0]`,
//! `spec.ports[port=80].appProtocol`.
//!
//! Invariant: what is not there is answered with the deepest part of the path that is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value with the lines of its parts.
enum Node {
    Map(Vec<(String, u64, Node)>),
    List(Vec<(u64, Node)>),
    Leaf(String),
}

/// The line of a field of the object that begins at a line.
pub(super) fn find(text: &str, line: u32, field: &str) -> Option<u32> {
    let first = usize::try_from(line).ok()?.checked_sub(1)?;
    let mut lines = text.lines().skip(first);
    let mut chunk = String::new();
    for (at, line) in lines.by_ref().enumerate() {
        if at > 0 && (line.starts_with("---") || line.starts_with("...")) {
            break;
        }
        // A document may begin behind its marker; the blanks keep the columns.
        chunk.push_str(&if at == 0 { line.replacen("---", "   ", 1) } else { line.to_owned() });
        chunk.push('\n');
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let node: Node = serde_saphyr::from_str_with_options(&chunk, options).ok()?;
    let within = deepest(&node, field)?;
    Some(line.saturating_add(u32::try_from(within).ok()?.saturating_sub(1)))
}

fn deepest(mut node: &Node, field: &str) -> Option<u64> {
    let mut found = None;
    for part in field.split('.') {
        let (name, indexes) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        let Node::Map(entries) = node else { return found };
        let Some((_, line, below)) = entries.iter().find(|(key, _, _)| key == name) else { return found };
        (found, node) = (Some(*line), below);
        if indexes.is_empty() {
            continue;
        }
        let Node::List(items) = node else { return found };
        let Some((line, below)) = element(items, indexes.trim_end_matches(']')) else { return found };
        (found, node) = (Some(*line), below);
    }
    found
}

/// An element by its number, or by what one of its fields says.
fn element<'a>(items: &'a [(u64, Node)], index: &str) -> Option<&'a (u64, Node)> {
    match index.split_once('=') {
        None => items.get(index.parse::<usize>().ok()?),
        Some((key, value)) => items.iter().find(|(_, item)| match item {
            Node::Map(entries) => entries
                .iter()
                .any(|(name, _, it)| name == key && matches!(it, Node::Leaf(text) if text == value)),
            Node::List(_) | Node::Leaf(_) => false,
        }),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Parts)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, key.referenced.line(), map.next_value()?));
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Node>>()? {
            items.push((item.referenced.line(), item.value));
        }
        Ok(Node::List(items))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Leaf(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(String::new()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(String::new()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(Node::Leaf(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A comment.
apiVersion: v1
kind: Service
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  rules:
    - name: first
      matches:
        - method: GET
        - headers:
            - {name: x-canary, value: \"1\"}
    - {name: second, timeouts: {request: 2s}}
  ports:
    - port: 80
    - port: 81
      appProtocol: http
";

    #[test]
    fn a_field_is_found_by_its_path_in_either_style() {
        for (field, line) in [
            ("spec", 8),
            ("spec.rules[0].name", 10),
            ("spec.rules[0].matches[1].headers[0]", 14),
            ("spec.rules[1].timeouts.request", 15),
            ("spec.rules[name=second]", 15),
            ("spec.ports[port=81].appProtocol", 19),
            ("spec.ports[port=80].appProtocol", 17),
            ("spec.rules[0].filters[3]", 10),
        ] {
            assert_eq!(find(TEXT, 5, field), Some(line), "{field}");
        }
    }

    #[test]
    fn what_is_not_there_has_no_line_of_its_own() {
        assert_eq!(find(TEXT, 5, "status.conditions"), None);
        assert_eq!(find(TEXT, 99, "spec"), None);
        assert_eq!(find("[", 1, "spec"), None);
    }
}
