//! Tables of what is and is not a trace context, and what goes back out.

use super::*;
use proptest::prelude::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn context() -> TraceContext {
    TraceContext {
        trace: TraceId(u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes()),
        span: SpanId(u64::from_str_radix("00f067aa0ba902b7", 16).unwrap().to_be_bytes()),
        parent: Some(SpanId(u64::from_str_radix(SPAN, 16).unwrap().to_be_bytes())),
        b3: B3::Absent,
        flags: 0,
        stale_state: false,
        kept: Kept::Caller,
    }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_traceparent_is_taken_to_the_letter() {
    for (text, expected) in [
        (format!("00-{TRACE}-{SPAN}-01"), Some(1)),
        (format!("00-{TRACE}-{SPAN}-00"), Some(0)),
        (format!("00-{TRACE}-{SPAN}-03"), Some(3)),
        (format!("00-{TRACE}-{SPAN}-ff"), Some(255)),
        (format!("cc-{TRACE}-{SPAN}-01"), Some(1)),
        (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), Some(1)),
        (format!("cc-{TRACE}-{SPAN}-01.what"), None),
        (format!("ff-{TRACE}-{SPAN}-01"), None),
        (format!("00-{TRACE}-{SPAN}-01-"), None),
        (format!("00-{TRACE}-{SPAN}-1"), None),
        (format!("00-{TRACE}-{SPAN}"), None),
        (format!("00-{TRACE}-{SPAN}-0G"), None),
        (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
        (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
        (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
        (format!("00_{TRACE}_{SPAN}_01"), None),
        (format!("0-{TRACE}-{SPAN}-01"), None),
        (format!(" 00-{TRACE}-{SPAN}-01"), None),
        (format!("00-{TRACE}-{SPAN}-01 "), None),
        ("00".to_owned(), None),
        (String::new(), None),
    ] {
        let parsed = traceparent(text.as_bytes());
        assert_eq!(parsed.map(|(_, _, flags)| flags), expected, "{text:?}");
        if let Some((trace, span, _)) = parsed {
            assert_eq!((&trace.hex()[..], &span.hex()[..]), (TRACE.as_bytes(), SPAN.as_bytes()));
        }
    }
}

#[test]
fn b3_in_one_field_is_taken_to_the_letter() {
    for (text, expected) in [
        (format!("{TRACE}-{SPAN}-1"), Some((true, Wish::Sample))),
        (format!("{TRACE}-{SPAN}-d"), Some((true, Wish::Sample))),
        (format!("{TRACE}-{SPAN}-0"), Some((true, Wish::Drop))),
        (format!("{TRACE}-{SPAN}"), Some((true, Wish::Open))),
        (format!("{TRACE}-{SPAN}-1-{SPAN}"), Some((true, Wish::Sample))),
        (format!("{}-{SPAN}-1", &TRACE[..16]), Some((true, Wish::Sample))),
        ("0".to_owned(), Some((false, Wish::Drop))),
        ("1".to_owned(), Some((false, Wish::Sample))),
        ("d".to_owned(), Some((false, Wish::Sample))),
        (format!("{TRACE}-{SPAN}-2"), None),
        (format!("{TRACE}-{SPAN}-1-{SPAN}-1"), None),
        (format!("{TRACE}-{SPAN}-1-xyz"), None),
        (format!("{TRACE}--1"), None),
        (format!("{}-{SPAN}-1", &TRACE[..20]), None),
        (format!("{}-{SPAN}-1", "0".repeat(32)), None),
        (String::new(), None),
    ] {
        let parsed = b3_single(text.as_bytes());
        assert_eq!(parsed.map(|(parent, wish)| (parent.is_some(), wish)), expected, "{text:?}");
    }
}

#[test]
fn b3_in_several_fields_is_read() {
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    for (more, wish) in [
        (vec![("x-b3-sampled", "1")], Wish::Sample),
        (vec![("x-b3-sampled", "true")], Wish::Sample),
        (vec![("x-b3-sampled", "0")], Wish::Drop),
        (vec![("x-b3-flags", "1")], Wish::Sample),
        (vec![], Wish::Open),
        (vec![("x-b3-sampled", "yes")], Wish::Open),
    ] {
        let incoming = read(&headers(&[&ids[..], &more].concat()));
        assert_eq!(
            (incoming.parent.is_some(), incoming.wish, incoming.b3),
            (true, wish, B3::Multi),
            "{more:?}"
        );
    }
    let lone = read(&headers(&[("x-b3-sampled", "0")]));
    assert_eq!((lone.parent, lone.wish, lone.b3), (None, Wish::Drop, B3::Multi));
    assert_eq!(read(&HeaderMap::new()), Incoming::default());
}

#[test]
fn a_64_bit_trace_is_the_lower_half() {
    let incoming = read(&headers(&[("b3", &format!("{}-{SPAN}-1", &TRACE[..16]))]));
    let (trace, _) = incoming.parent.unwrap();
    assert_eq!(std::str::from_utf8(&trace.hex()).unwrap(), format!("{}{}", "0".repeat(16), &TRACE[..16]));
}

#[test]
fn w3c_goes_before_b3_and_two_traceparents_are_none() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let both = read(&headers(&[("traceparent", &w3c), ("b3", "0")]));
    assert_eq!((both.wish, both.b3), (Wish::Sample, B3::Single));
    let twice = read(&headers(&[("traceparent", &w3c), ("traceparent", &w3c), ("tracestate", "a=1")]));
    assert_eq!((twice.parent, twice.wish, twice.stale_state), (None, Wish::Open, true));
}

#[test]
fn the_next_hop_gets_w3c_and_the_b3_form_that_came() {
    let expected = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut plain = headers(&[("traceparent", "old"), ("tracestate", "vendor=1")]);
    inject(&context(), &mut plain);
    assert_eq!(value(&plain, "traceparent"), Some(expected.as_str()));
    assert_eq!(value(&plain, "tracestate"), Some("vendor=1"));
    assert!(!plain.contains_key("b3") && !plain.contains_key("x-b3-traceid"));

    let mut single = headers(&[("b3", "1")]);
    inject(&TraceContext { b3: B3::Single, ..context() }, &mut single);
    let b3 = format!("{TRACE}-00f067aa0ba902b7-1-{SPAN}");
    assert_eq!(
        (value(&single, "b3"), value(&single, "traceparent")),
        (Some(b3.as_str()), Some(expected.as_str()))
    );

    let mut root = HeaderMap::new();
    inject(&TraceContext { b3: B3::Single, parent: None, ..context() }, &mut root);
    assert_eq!(value(&root, "b3"), Some(&b3[..51]));

    let mut multi = headers(&[("x-b3-parentspanid", "stale")]);
    inject(&TraceContext { b3: B3::Multi, ..context() }, &mut multi);
    let fields = ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"];
    assert_eq!(
        fields.map(|name| value(&multi, name)),
        [Some(TRACE), Some("00f067aa0ba902b7"), Some(SPAN), Some("1")]
    );
}

#[test]
fn a_state_that_belongs_to_another_trace_does_not_go_on() {
    let mut fields = headers(&[("tracestate", "vendor=1")]);
    inject(&TraceContext { stale_state: true, ..context() }, &mut fields);
    assert!(!fields.contains_key("tracestate"));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = traceparent(&bytes);
        let _ = b3_single(&bytes);
    }

    #[test]
    fn almost_contexts_do_not_panic_and_are_none_when_changed(at in 0usize..55, byte in any::<u8>()) {
        let mut text = format!("00-{TRACE}-{SPAN}-01").into_bytes();
        text[at] = byte;
        let hex = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let dash = [2, 35, 52].contains(&at);
        let expected = if dash { byte == b'-' } else { hex };
        // A later version of the same length is as good; ff is none.
        let version_ff = at < 2 && &text[..2] == b"ff";
        prop_assert_eq!(traceparent(&text).is_some(), expected && !version_ff);
    }

    #[test]
    fn what_is_written_is_read_back(trace in 1u128.., span in 1u64.., parent in 1u64.., form in 0u8..3, random in any::<bool>()) {
        let b3 = [B3::Absent, B3::Single, B3::Multi][usize::from(form)];
        let context = TraceContext {
            trace: TraceId(trace.to_be_bytes()),
            span: SpanId(span.to_be_bytes()),
            parent: Some(SpanId(parent.to_be_bytes())),
            b3,
            flags: if random { 2 } else { 0 },
            stale_state: false,
            kept: Kept::Caller,
        };
        let mut headers = HeaderMap::new();
        inject(&context, &mut headers);
        let incoming = read(&headers);
        prop_assert_eq!(incoming.parent, Some((context.trace, context.span)));
        prop_assert_eq!((incoming.wish, incoming.b3, incoming.flags), (Wish::Sample, b3, context.flags));
        headers.remove("traceparent");
        let again = read(&headers);
        prop_assert_eq!(again.parent.is_some(), b3 != B3::Absent);
        if let Some(found) = again.parent {
            prop_assert_eq!(found, (context.trace, context.span));
        }
    }
}
