//! Rust text with its comments, strings and tests made blank, line by line: enough to count braces and
//! to look for words without being misled, and no parser.
//!
//! Invariant: blanking keeps every byte and every line in its place.

use std::ops::Range;

/// The text with comments, strings and character literals blanked.
pub fn code(text: &str) -> String {
    let mut lexer = Lexer { rest: text, out: String::with_capacity(text.len()), last: ' ' };
    while lexer.step() {}
    lexer.out
}

/// [`code`], with everything marked `#[cfg(test)]` blanked too.
pub fn production(text: &str) -> String {
    let mut code = code(text);
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|at| at + from) {
        let end = item_end(&code, at + "#[cfg(test)]".len());
        let blank = blank(&code[at..end]);
        code.replace_range(at..end, &blank);
        from = end;
    }
    code
}

/// As many bytes, in as many lines.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Where the item that begins at `from` ends: behind its `;`, its closing
/// brace, or what encloses it.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'}' if depth == 0 => return at,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// A function in blanked code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Lines of its body that hold code.
    pub lines: usize,
}

/// The functions with a body, nested ones included.
pub fn functions(code: &str) -> Vec<Function<'_>> {
    words(code, "fn")
        .filter_map(|at| {
            let rest = code.get(at + 2..)?.trim_start();
            let name = rest.split(|c: char| !is_word(c)).next().filter(|name| !name.is_empty())?;
            let body = body(code, at)?;
            let lines = code.get(body)?.lines().filter(|line| !line.trim().is_empty()).count();
            Some(Function { name, lines })
        })
        .collect()
}

/// What is between the braces of the function that begins at `from`; `None` if it has none.
fn body(code: &str, from: usize) -> Option<Range<usize>> {
    let (mut depth, mut start) = (0_i32, None);
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' => {
                if depth == 0 {
                    start = start.or(Some(at + 1));
                }
                depth += 1;
            }
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return start.map(|start| start..at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Where a word stands alone in the text.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back().is_some_and(is_word);
        let after = text[at + word.len()..].chars().next().is_some_and(is_word);
        let ends_open = !word.chars().next_back().is_some_and(is_word);
        !before && (ends_open || !after)
    })
}

/// The line, counted from 1, of a place in the text.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Lexer<'a> {
    rest: &'a str,
    out: String,
    last: char,
}

impl Lexer<'_> {
    fn step(&mut self) -> bool {
        let Some(c) = self.rest.chars().next() else { return false };
        let joined = is_word(self.last);
        let length = match c {
            '/' if self.rest.starts_with("//") => self.rest.find('\n').unwrap_or(self.rest.len()),
            '/' if self.rest.starts_with("/*") => self.block_comment(),
            '"' => quoted(self.rest, '"'),
            'b' | 'r' | 'c' if !joined => raw_string(self.rest).unwrap_or(0),
            '\'' => character(self.rest).unwrap_or(0),
            _ => 0,
        };
        if length == 0 {
            self.out.push(c);
            self.rest = &self.rest[c.len_utf8()..];
        } else {
            let (gone, rest) = self.rest.split_at(length);
            self.out.push_str(&blank(gone));
            self.rest = rest;
        }
        self.last = c;
        true
    }

    fn block_comment(&self) -> usize {
        let (mut depth, mut at) = (0, 0);
        while let Some(rest) = self.rest.get(at..).filter(|rest| !rest.is_empty()) {
            let (change, width) = match rest {
                _ if rest.starts_with("/*") => (1, 2),
                _ if rest.starts_with("*/") => (-1, 2),
                _ => (0, rest.chars().next().map_or(1, char::len_utf8)),
            };
            depth += change;
            at += width;
            if depth == 0 {
                break;
            }
        }
        at
    }
}

/// Length of a literal that begins with its quote and ends with the next one not escaped.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of a string with a prefix (`b"`, `r#"`, `br"`, `c"`); `None` if there is none here.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = text.find(|c: char| !matches!(c, 'b' | 'r' | 'c')).filter(|length| *length <= 2)?;
    let rest = text.get(prefix..)?;
    let hashes = rest.bytes().take_while(|b| *b == b'#').count();
    let body = rest.get(hashes..)?.strip_prefix('"')?;
    if text.get(..prefix)?.contains('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + length);
    }
    (hashes == 0).then(|| prefix + quoted(rest, '"'))
}

/// Length of a character literal; `None` where the quote begins a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.chars().skip(1);
    let (first, second) = (chars.next()?, chars.next()?);
    match first {
        '\\' => Some(quoted(text, '\'')),
        _ if second == '\'' => Some(2 + first.len_utf8()),
        _ => None,
    }
}
