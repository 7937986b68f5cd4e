//! A template's tree and the values → text, as `helm template` would write it.
//!
//! Before it: *parse*. After it: the objects that `weft install` prints.
//!
//! Invariant: a value that does not exist is an error, not an empty text.
//! Invariant: a function that is not listed in [`call`] is an error.

use std::collections::BTreeMap;

use serde_json::Value;

use super::parse::{Call, Node, Operand, Pipeline};
use super::{Error, yaml};

/// How deep templates may include each other. Source: ours; the chart's go one deep.
const DEPTH: usize = 8;

/// The templates that `include` finds.
pub(super) type Defined = BTreeMap<String, Vec<Node>>;

/// Writes a template with `.` and `$` being `root`.
pub(super) fn render(nodes: &[Node], root: &Value, defined: &Defined) -> Result<String, Error> {
    let mut out = String::new();
    Scope { root, dot: root, defined, depth: 0 }.write(nodes, &mut out)?;
    Ok(out)
}

/// Where an expression is looked at.
#[derive(Clone, Copy)]
struct Scope<'a> {
    root: &'a Value,
    dot: &'a Value,
    defined: &'a Defined,
    depth: usize,
}

impl Scope<'_> {
    fn write(&self, nodes: &[Node], out: &mut String) -> Result<(), Error> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(pipeline) => out.push_str(&text(&self.pipeline(pipeline)?)?),
                Node::If(branches) => {
                    for (condition, body) in branches {
                        let holds = match condition {
                            Some(condition) => truth(&self.pipeline(condition)?),
                            None => true,
                        };
                        if holds {
                            self.write(body, out)?;
                            break;
                        }
                    }
                }
                Node::With(pipeline, body, other) => {
                    let value = self.pipeline(pipeline)?;
                    if truth(&value) {
                        Scope { dot: &value, ..*self }.write(body, out)?;
                    } else {
                        self.write(other, out)?;
                    }
                }
                Node::Range(pipeline, body, other) => match self.pipeline(pipeline)? {
                    Value::Array(list) if list.is_empty() => self.write(other, out)?,
                    Value::Array(list) => {
                        for element in &list {
                            Scope { dot: element, ..*self }.write(body, out)?;
                        }
                    }
                    other => return Err(Error::new(format!("range takes a list, not {other}"))),
                },
                Node::Define(..) => return Err(Error::new("define stands outside of everything else")),
            }
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<Value, Error> {
        let mut last = None;
        for step in pipeline {
            let value = match (step, last) {
                (Call::Value(operand), None) => self.operand(operand)?,
                (Call::Value(_), Some(_)) => return Err(Error::new("a value cannot stand behind |")),
                (Call::Function(name, operands), last) => {
                    let arguments: Result<Vec<Value>, Error> =
                        operands.iter().map(|operand| self.operand(operand)).collect();
                    let mut arguments = arguments?;
                    arguments.extend(last);
                    self.call(name, &arguments)?
                }
            };
            last = Some(value);
        }
        last.ok_or_else(|| Error::new("an empty expression"))
    }

    fn operand(&self, operand: &Operand) -> Result<Value, Error> {
        match operand {
            Operand::Dot(path) => find(self.dot, path),
            Operand::Root(path) => find(self.root, path),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Group(pipeline) => self.pipeline(pipeline),
        }
    }

    /// The functions, as Go's templates, Sprig and Helm define them.
    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, Error> {
        Ok(match (name, arguments) {
            ("not", [value]) => Value::Bool(!truth(value)),
            ("and", [all @ .., last]) => all.iter().find(|value| !truth(value)).unwrap_or(last).clone(),
            ("or", [all @ .., last]) => all.iter().find(|value| truth(value)).unwrap_or(last).clone(),
            ("eq", [left, right]) => Value::Bool(equal(left, right)?),
            ("ne", [left, right]) => Value::Bool(!equal(left, right)?),
            ("default", [other, value]) => if truth(value) { value } else { other }.clone(),
            ("quote", [value]) => Value::String(yaml::quoted(&text(value)?)),
            ("toYaml", [value]) => Value::String(yaml::write(value).trim_end().to_owned()),
            ("indent", [Value::Number(width), Value::String(text)]) => Value::String(indent(width, text)?),
            ("nindent", [Value::Number(width), Value::String(text)]) => {
                Value::String(format!("\n{}", indent(width, text)?))
            }
            ("include", [Value::String(name), dot]) => Value::String(self.include(name, dot)?),
            _ => {
                let given = arguments.len();
                return Err(Error::new(format!(
                    "{name} with these {given} argument(s) is not among what the chart may use"
                )));
            }
        })
    }

    fn include(&self, name: &str, dot: &Value) -> Result<String, Error> {
        let body =
            self.defined.get(name).ok_or_else(|| Error::new(format!("no template {name:?} is defined")))?;
        if self.depth >= DEPTH {
            return Err(Error::new(format!("{name}: templates include each other too deeply")));
        }
        let mut out = String::new();
        // As in Helm, `$` is what the template was given.
        Scope { root: dot, dot, defined: self.defined, depth: self.depth + 1 }.write(body, &mut out)?;
        Ok(out)
    }
}

fn find(from: &Value, path: &[String]) -> Result<Value, Error> {
    let mut at = from;
    for step in path {
        at = at.get(step).ok_or_else(|| Error::new(format!(".{}: there is no {step}", path.join("."))))?;
    }
    Ok(at.clone())
}

/// Whether a condition holds. Source: text/template, "empty values".
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    match (left, right) {
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_)) => Ok(left == right),
        _ => Err(Error::new(format!("{left} and {right} cannot be compared"))),
    }
}

/// A value as it is printed.
fn text(value: &Value) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Err(Error::new(format!("{other} is printed only through toYaml"))),
    }
}

/// The text with every line moved in. Source: Sprig, which moves empty lines too.
fn indent(width: &serde_json::Number, text: &str) -> Result<String, Error> {
    let width = width.as_u64().and_then(|width| usize::try_from(width).ok()).filter(|width| *width <= 64);
    let pad = " ".repeat(width.ok_or_else(|| Error::new("lines are moved in by 0 to 64"))?);
    Ok(text.split('\n').map(|line| format!("{pad}{line}")).collect::<Vec<_>>().join("\n"))
}
