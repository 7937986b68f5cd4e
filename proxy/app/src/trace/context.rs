//! The trace that a request belongs to, read from its header fields and written back to them.
//!
//! Reading comes with the request's head, before routing; writing comes with each attempt.
//!
//! Invariant: reading allocates nothing; what does not follow the standard to the letter is as if absent.
//! Invariant: a request that is not sampled is passed on as it came.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A trace's 16 bytes; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span's 8 bytes; never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// Which B3 fields a request came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum B3 {
    /// None.
    #[default]
    Absent,
    /// The one field `b3`.
    Single,
    /// The fields `x-b3-*`.
    Multi,
}

/// The caller's word on sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Keep it.
    Sample,
    /// Do not.
    Drop,
    /// Decide yourself.
    #[default]
    Open,
}

/// Why something is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// The caller asked for it.
    #[default]
    Caller,
    /// It is of the share that is kept.
    Share,
    /// It is one of so many a second.
    Rate,
    /// It joined the one request in flight, which is a guess.
    Guess,
    /// It ended in an error.
    Error,
}

impl Kept {
    /// The word in attributes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Share => "share",
            Self::Rate => "rate",
            Self::Guess => "guess",
            Self::Error => "error",
        }
    }
}

/// What a request said about its trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// Trace and calling span, where both are given.
    pub parent: Option<(TraceId, SpanId)>,
    /// The caller's word on sampling.
    pub wish: Wish,
    /// B3 fields it came with.
    pub b3: B3,
    /// Flags of the `traceparent` that every hop passes on: the random bit of version 00, level 2.
    pub flags: u8,
    /// Whether a `tracestate` would belong to another trace than the one that goes on.
    pub stale_state: bool,
}

/// One span of a sampled trace, as it is told to the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that the next hop's span is a child of.
    pub span: SpanId,
    /// The span that this one is a child of.
    pub parent: Option<SpanId>,
    /// B3 fields the request came with.
    pub b3: B3,
    /// Flags beside "sampled".
    pub flags: u8,
    /// Whether a `tracestate` in the request belongs to another trace.
    pub stale_state: bool,
    /// Why it is kept.
    pub kept: Kept,
}

impl TraceId {
    /// Lowercase hexadecimal, without allocating.
    #[must_use]
    pub fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&self.0, &mut text);
        text
    }
}

impl SpanId {
    /// Lowercase hexadecimal, without allocating.
    #[must_use]
    pub fn hex(self) -> [u8; 16] {
        let mut text = [0; 16];
        write_hex(&self.0, &mut text);
        text
    }
}

/// Reads what a request says about its trace: W3C first, else B3 in one field, else B3 in several.
#[must_use]
pub fn read(headers: &HeaderMap) -> Incoming {
    // Most requests say nothing, and one look over the names costs less than asking for each.
    if !headers.keys().any(is_ours) {
        return Incoming::default();
    }
    let b3 = read_b3(headers);
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parsed = match (parents.next(), parents.next()) {
        (Some(value), None) => traceparent(value.as_bytes()),
        _ => None,
    };
    match parsed {
        Some((trace, span, flags)) => Incoming {
            parent: Some((trace, span)),
            wish: if flags & SAMPLED == 0 { Wish::Drop } else { Wish::Sample },
            b3: b3.b3,
            flags: flags & RANDOM,
            stale_state: false,
        },
        None => Incoming { stale_state: headers.contains_key(TRACESTATE), ..b3 },
    }
}

fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("trace") || name.starts_with("x-b3-") || name == "b3"
}

/// Writes the context for the next hop: W3C always, B3 in the form that the request came with.
pub fn inject(context: &TraceContext, headers: &mut HeaderMap) {
    headers.insert(TRACEPARENT, traceparent_value(context));
    if context.stale_state {
        headers.remove(TRACESTATE);
    }
    match context.b3 {
        B3::Absent => {}
        B3::Single => {
            headers.insert(B3_SINGLE, b3_value(context));
        }
        B3::Multi => {
            headers.insert(B3_TRACE, ascii(&context.trace.hex()));
            headers.insert(B3_SPAN, ascii(&context.span.hex()));
            match context.parent {
                Some(parent) => headers.insert(B3_PARENT, ascii(&parent.hex())),
                None => headers.remove(B3_PARENT),
            };
            if !headers.contains_key(B3_FLAGS) {
                headers.insert(B3_SAMPLED, HeaderValue::from_static("1"));
            }
        }
    }
}

/// Reads a `traceparent`: trace, calling span, flags.
///
/// Source: W3C Trace Context level 2, §3.2: version 00 is exact, a later version may go on after
/// another dash, ff is invalid, ids of zeros are invalid, upper case is invalid.
#[must_use]
pub fn traceparent(value: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let version = byte(value.get(..2)?)?;
    let more = value.get(55..)?;
    let length_ok = if version == 0 { more.is_empty() } else { matches!(more.first(), None | Some(b'-')) };
    let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
    if version == 0xff || !length_ok || !dashes {
        return None;
    }
    let trace = ids::<16>(value.get(3..35)?)?;
    let span = ids::<8>(value.get(36..52)?)?;
    let flags = byte(value.get(53..55)?)?;
    Some((TraceId(trace), SpanId(span), flags))
}

fn traceparent_value(context: &TraceContext) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let (head, flags) = text.split_at_mut(53);
    let (trace, span) = head.split_at_mut(36);
    write_hex(&context.trace.0, trace.get_mut(3..35).unwrap_or_default());
    write_hex(&context.span.0, span.get_mut(..16).unwrap_or_default());
    write_hex(&[SAMPLED | context.flags], flags);
    ascii(&text)
}

fn read_b3(headers: &HeaderMap) -> Incoming {
    if let Some(value) = headers.get(B3_SINGLE) {
        let (parent, wish) = b3_single(value.as_bytes()).unwrap_or_default();
        return Incoming { parent, wish, b3: B3::Single, ..Incoming::default() };
    }
    let field = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let (trace, span) = (field(&B3_TRACE), field(&B3_SPAN));
    let wish = match (field(&B3_FLAGS), field(&B3_SAMPLED)) {
        (Some(b"1"), _) | (_, Some(b"1" | b"true")) => Wish::Sample,
        (_, Some(b"0" | b"false")) => Wish::Drop,
        _ => Wish::Open,
    };
    let parent = trace.and_then(b3_trace).zip(span.and_then(ids::<8>).map(SpanId));
    let b3 = if trace.is_some() || wish != Wish::Open { B3::Multi } else { B3::Absent };
    Incoming { parent, wish, b3, ..Incoming::default() }
}

/// Reads a `b3`: `<trace>-<span>[-<sampled>[-<parent>]]`, or the sampling state alone.
///
/// Source: openzipkin/b3-propagation, "Single Header".
#[must_use]
pub fn b3_single(value: &[u8]) -> Option<(Option<(TraceId, SpanId)>, Wish)> {
    if let Some(wish) = b3_state(value) {
        return Some((None, wish));
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let trace = b3_trace(parts.next()?)?;
    let span = SpanId(ids::<8>(parts.next()?)?);
    let wish = match parts.next() {
        Some(state) => b3_state(state)?,
        None => Wish::Open,
    };
    if let Some(parent) = parts.next() {
        ids::<8>(parent)?;
    }
    parts.next().is_none().then_some((Some((trace, span)), wish))
}

fn b3_state(value: &[u8]) -> Option<Wish> {
    match value {
        b"1" | b"d" => Some(Wish::Sample),
        b"0" => Some(Wish::Drop),
        _ => None,
    }
}

/// A B3 trace id of 128 bits, or of 64 bits, which count as the lower half.
fn b3_trace(text: &[u8]) -> Option<TraceId> {
    if text.len() == 32 {
        return ids::<16>(text).map(TraceId);
    }
    let low = ids::<8>(text)?;
    let mut trace = [0; 16];
    trace.get_mut(8..)?.copy_from_slice(&low);
    Some(TraceId(trace))
}

fn b3_value(context: &TraceContext) -> HeaderValue {
    let mut text = [b'-'; 68];
    let fields: [(usize, &[u8]); 3] = [(0, &context.trace.hex()), (33, &context.span.hex()), (50, b"1")];
    for (at, field) in fields {
        put(&mut text, at, field);
    }
    let length = match context.parent {
        Some(parent) => {
            put(&mut text, 52, &parent.hex());
            68
        }
        None => 51,
    };
    ascii(text.get(..length).unwrap_or_default())
}

fn put(text: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = text.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

/// An id in lowercase hexadecimal; zeros are no id.
fn ids<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut id = [0; N];
    for (place, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
        *place = byte(pair)?;
    }
    (id != [0; N]).then_some(id)
}

fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |at: usize| match pair.get(at)? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some((digit(0)? << 4) | digit(1)?)
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        if let [high, low] = pair {
            *high = DIGITS[usize::from(byte >> 4)];
            *low = DIGITS[usize::from(byte & 15)];
        }
    }
}

/// A field value of digits and dashes.
fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The context of W3C.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3_SINGLE: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Source: W3C Trace Context level 2, §3.2.2.5.
const SAMPLED: u8 = 1;
/// Source: W3C Trace Context level 2, §3.2.2.5: passed on by whoever keeps the trace id.
const RANDOM: u8 = 2;

#[cfg(test)]
mod tests;
