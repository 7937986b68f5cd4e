//! The text of a template → its tree: the subset of Go's templates that the chart uses.
//!
//! Before it: a file of the chart. After it: *render*.
//!
//! Invariant: what is outside the subset is refused here or in *render*, never passed through or left
//! out. Deliberately absent: variables, `block`, `template`, assignments, custom delimiters.

use serde_json::Value;

use super::Error;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Text as it stands.
    Text(String),
    /// What an expression gives.
    Print(Pipeline),
    /// The first branch whose condition holds; the last may have none.
    If(Vec<(Option<Pipeline>, Vec<Node>)>),
    /// The first part with `.` set to a value that is not empty, else the second.
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// The first part for each element of a list, else the second.
    Range(Pipeline, Vec<Node>, Vec<Node>),
    /// A template that `include` finds by its name.
    Define(String, Vec<Node>),
}

/// Calls, each given what the one before it gave as its last argument.
pub(super) type Pipeline = Vec<Call>;

/// An operand, or a function and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    /// A value.
    Value(Operand),
    /// A function by its name.
    Function(String, Vec<Operand>),
}

/// A value in an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// A path below `.`.
    Dot(Vec<String>),
    /// A path below `$`, which is `.` as the file began.
    Root(Vec<String>),
    /// A text, number or truth value.
    Literal(Value),
    /// An expression in parentheses.
    Group(Pipeline),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Error> {
    let mut pieces = Pieces { pieces: split(text)?, at: 0 };
    let (nodes, end) = pieces.body()?;
    match end {
        None => Ok(nodes),
        Some(stray) => Err(Error::new(format!("{{{{ {} }}}} closes nothing", stray.join(" ")))),
    }
}

/// Text, or the words of an action.
enum Piece {
    Text(String),
    Action(Vec<String>),
}

/// Cuts a template into text and actions; `{{-` and `-}}` take the white space beside them.
fn split(text: &str) -> Result<Vec<Piece>, Error> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let before = if trim { before.trim_start() } else { before };
        let (before, after) = match after.strip_prefix("- ") {
            Some(after) => (before.trim_end(), after),
            None => match after.strip_prefix("-/*") {
                Some(_) => return Err(Error::new("a comment is written {{- /* … */ -}}")),
                None => (before, after),
            },
        };
        pieces.push(Piece::Text(before.to_owned()));
        let (action, after) = after.split_once("}}").ok_or_else(|| Error::new("{{ without }}"))?;
        (trim, rest) = (action.ends_with(" -"), after);
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(words(action)?));
        }
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// Cuts an action into words; a text keeps its opening quote.
fn words(action: &str) -> Result<Vec<String>, Error> {
    let (mut words, mut rest) = (Vec::new(), action.trim_start());
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => closing_quote(rest).ok_or_else(|| Error::new(format!("{action}: a text does not end")))?,
            '(' | ')' | '|' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "()|\"".contains(c)).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(end);
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

/// Where a text that begins with a quote ends, behind its closing quote.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return Some(at + 1),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

struct Pieces {
    pieces: Vec<Piece>,
    at: usize,
}

impl Pieces {
    /// Reads up to an `end` or `else`, whose words are given back.
    fn body(&mut self) -> Result<(Vec<Node>, Option<Vec<String>>), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            match piece {
                Piece::Text(text) if text.is_empty() => {}
                Piece::Text(text) => nodes.push(Node::Text(text.clone())),
                Piece::Action(words) => {
                    let words = words.clone();
                    match words.first().map(String::as_str) {
                        Some("end" | "else") => return Ok((nodes, Some(words))),
                        _ => nodes.push(self.action(&words)?),
                    }
                }
            }
        }
        Ok((nodes, None))
    }

    fn action(&mut self, words: &[String]) -> Result<Node, Error> {
        let (first, rest) = words.split_first().ok_or_else(|| Error::new("an empty action"))?;
        match first.as_str() {
            "if" => self.branches(pipeline(rest)?),
            "with" => {
                let (body, other) = self.body_and_else()?;
                Ok(Node::With(pipeline(rest)?, body, other))
            }
            "range" => {
                let (body, other) = self.body_and_else()?;
                Ok(Node::Range(pipeline(rest)?, body, other))
            }
            "define" => match (pipeline(rest)?.as_slice(), self.body()?) {
                ([Call::Value(Operand::Literal(Value::String(name)))], (body, Some(end)))
                    if end == ["end"] =>
                {
                    Ok(Node::Define(name.clone(), body))
                }
                _ => Err(Error::new("define takes a name in quotes and ends with {{ end }}")),
            },
            "template" | "block" | "break" | "continue" => {
                Err(Error::new(format!("{first} is not among what the chart may use")))
            }
            _ => Ok(Node::Print(pipeline(words)?)),
        }
    }

    fn branches(&mut self, condition: Pipeline) -> Result<Node, Error> {
        let (mut branches, mut condition) = (Vec::new(), Some(condition));
        loop {
            let last = condition.is_none();
            let (body, end) = self.body()?;
            branches.push((condition, body));
            let end = end.unwrap_or_default();
            let end: Vec<&str> = end.iter().map(String::as_str).collect();
            condition = match end.as_slice() {
                ["end"] => return Ok(Node::If(branches)),
                ["else"] if !last => None,
                ["else", "if", rest @ ..] if !last => {
                    Some(pipeline(&rest.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())?)
                }
                _ => return Err(Error::new("an if without its {{ end }}")),
            };
        }
    }

    fn body_and_else(&mut self) -> Result<(Vec<Node>, Vec<Node>), Error> {
        let unfinished = || Error::new("a with or range without its {{ end }}");
        let (body, end) = self.body()?;
        match end.as_deref() {
            Some([word]) if word == "end" => Ok((body, Vec::new())),
            Some([word]) if word == "else" => {
                let (other, end) = self.body()?;
                if end.as_deref().is_some_and(|end| end == ["end"]) {
                    Ok((body, other))
                } else {
                    Err(unfinished())
                }
            }
            _ => Err(unfinished()),
        }
    }
}

/// Reads a whole expression.
fn pipeline(words: &[String]) -> Result<Pipeline, Error> {
    let (pipeline, rest) = calls(words)?;
    if rest.is_empty() { Ok(pipeline) } else { Err(Error::new(format!("{}: a ) too many", words.join(" ")))) }
}

/// Reads calls up to a closing parenthesis.
fn calls(words: &[String]) -> Result<(Pipeline, &[String]), Error> {
    let (mut pipeline, mut rest) = (Vec::new(), words);
    loop {
        let (call, after) = call(rest)?;
        pipeline.push(call);
        match after.split_first() {
            Some((bar, after)) if bar == "|" => rest = after,
            _ => return Ok((pipeline, after)),
        }
    }
}

fn call(words: &[String]) -> Result<(Call, &[String]), Error> {
    let missing = || Error::new(format!("{:?}: an expression is missing", words.join(" ")));
    let first = words.first().ok_or_else(missing)?;
    let is_function =
        first.starts_with(|c: char| c.is_ascii_lowercase()) && first != "true" && first != "false";
    if !is_function {
        let (operand, rest) = operand(words)?;
        return Ok((Call::Value(operand), rest));
    }
    let (mut operands, mut rest) = (Vec::new(), words.get(1..).unwrap_or_default());
    while rest.first().is_some_and(|word| word != "|" && word != ")") {
        let (operand, after) = operand(rest)?;
        operands.push(operand);
        rest = after;
    }
    Ok((Call::Function(first.clone(), operands), rest))
}

fn operand(words: &[String]) -> Result<(Operand, &[String]), Error> {
    let (first, rest) = words.split_first().ok_or_else(|| Error::new("an expression is missing"))?;
    let outside = || Error::new(format!("{first:?} is not among what the chart may use"));
    if first == "(" {
        let (group, rest) = calls(rest)?;
        let closed = rest.split_first().filter(|(word, _)| *word == ")");
        let (_, rest) = closed.ok_or_else(|| Error::new("a ( without its )"))?;
        return Ok((Operand::Group(group), rest));
    }
    let operand = if let Some(path) = first.strip_prefix('$') {
        Operand::Root(steps(path).ok_or_else(outside)?)
    } else if first.starts_with('.') {
        Operand::Dot(steps(first).ok_or_else(outside)?)
    } else {
        Operand::Literal(serde_json::from_str(first).map_err(|_| outside())?)
    };
    Ok((operand, rest))
}

/// The steps of `.a.b`, of `.` and of nothing.
fn steps(path: &str) -> Option<Vec<String>> {
    if path.is_empty() || path == "." {
        return Some(Vec::new());
    }
    let steps: Vec<String> = path.strip_prefix('.')?.split('.').map(str::to_owned).collect();
    let is_name =
        |step: &String| !step.is_empty() && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    steps.iter().all(is_name).then_some(steps)
}
