//! Pages in their three forms.

use super::*;
use crate::family::ALONE;
use crate::histogram::{Bucket, Exemplar, Native};

static WHO: Group = Group { name: "who", labels: &["source"] };
static REQUESTS: Family = Family::counter("t_requests", "Requests that ended").of(&WHO).by(&["code"]);
static TOOK: Family = Family::histogram("t_took_seconds", "How long").of(&WHO);
static OPEN: Family = Family::gauge("t_open", "Open now");
static BUILD: Family = Family::info("t_build", "What it is").by(&["version"]);
static STRANGER: Family = Family::gauge("t_stranger", "Not in the catalog");
static CATALOG: [&Family; 4] = [&REQUESTS, &TOOK, &OPEN, &BUILD];

fn page(format: Format) -> Vec<u8> {
    let mut page = Page::new(&CATALOG, format);
    let who = page.set(&WHO, &["a\"b\\c\nd"]);
    page.family(&REQUESTS).add(&who, &["200"], 7u64);
    let exemplar = Exemplar { trace_id: [b'a'; 32], value: 0.25, timestamp: 1_700_000_000.125 };
    let bucket = |upper, count, exemplar| Bucket { upper, count, exemplar };
    let buckets = [bucket(0.5, 2, Some(exemplar)), bucket(1.0, 0, None), bucket(f64::INFINITY, 1, None)];
    let native = Native { schema: 0, zero_threshold: 0.001, zero: 1, first: -1, counts: &[1, 0, 1] };
    page.family(&TOOK).histogram(&who, &[], &Reading { sum: 2.5, buckets: &buckets, native: Some(native) });
    page.family(&OPEN).one(-3i64);
    page.family(&BUILD).add(&Set::NONE, &["1"], 1u64);
    page.finish()
}

#[test]
fn openmetrics_has_units_exemplars_and_an_end() {
    let text = String::from_utf8(page(Format::OpenMetrics)).unwrap();
    let expected = r##"# HELP t_requests Requests that ended
# TYPE t_requests counter
t_requests_total{source="a\"b\\c\nd",code="200"} 7
# HELP t_took_seconds How long
# TYPE t_took_seconds histogram
# UNIT t_took_seconds seconds
t_took_seconds_bucket{source="a\"b\\c\nd",le="0.5"} 2 # {trace_id="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} 0.25 1700000000.125
t_took_seconds_bucket{source="a\"b\\c\nd",le="1.0"} 2
t_took_seconds_bucket{source="a\"b\\c\nd",le="+Inf"} 3
t_took_seconds_sum{source="a\"b\\c\nd"} 2.5
t_took_seconds_count{source="a\"b\\c\nd"} 3
# HELP t_open Open now
# TYPE t_open gauge
t_open -3
# HELP t_build What it is
# TYPE t_build info
t_build_info{version="1"} 1
# EOF
"##;
    assert_eq!(text, expected);
}

#[test]
fn the_classic_text_names_counters_as_their_rows_and_has_neither_units_nor_exemplars() {
    let text = String::from_utf8(page(Format::Classic)).unwrap();
    for line in [
        "# TYPE t_requests_total counter",
        "# TYPE t_build_info gauge",
        "t_took_seconds_count{source=\"a\\\"b\\\\c\\nd\"} 3",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
    assert!(!text.contains("trace_id") && !text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
}

/// The fields of a message, by number: numbers as they are, others by their bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => found.push((key >> 3, varint(&mut bytes), &[][..])),
            1 => {
                let (value, rest) = bytes.split_at(8);
                found.push((key >> 3, u64::from_le_bytes(value.try_into().unwrap()), &[][..]));
                bytes = rest;
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                found.push((key >> 3, 0, value));
                bytes = rest;
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return value;
        }
    }
}

#[test]
fn protobuf_holds_the_native_histogram_beside_the_classic_one() {
    let written = page(Format::Protobuf);
    let mut rest = written.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        let length = usize::try_from(varint(&mut rest)).unwrap();
        let (family, behind) = rest.split_at(length);
        families.push(fields(family));
        rest = behind;
    }
    let names: Vec<_> =
        families.iter().map(|family| (std::str::from_utf8(family[0].2).unwrap(), family[2].1)).collect();
    assert_eq!(names, [("t_requests_total", 0), ("t_took_seconds", 4), ("t_open", 1), ("t_build_info", 1)]);
    let metric = fields(families[1][3].2);
    let label = fields(metric[0].2);
    assert_eq!((label[0].2, label[1].2), (&b"source"[..], &b"a\"b\\c\nd"[..]));
    let histogram = fields(metric[1].2);
    let of = |number| histogram.iter().filter(move |field| field.0 == number);
    assert_eq!(of(1).next().unwrap().1, 3);
    assert_eq!(of(3).count(), 3, "classic buckets");
    assert_eq!((of(5).next().unwrap().1, of(7).next().unwrap().1), (0, 1), "schema and zero");
    assert_eq!(of(12).count(), 2, "two runs of buckets");
    assert_eq!(of(13).map(|field| field.1).collect::<Vec<_>>(), [2, 0], "one, and none more");
    let open = fields(fields(families[2][3].2)[0].2);
    assert_eq!(f64::from_bits(open[0].1), -3.0);
}

#[test]
#[should_panic(expected = "t_stranger is not in the catalog")]
fn a_family_that_nobody_described_is_refused() {
    Page::new(&CATALOG, Format::Classic).family(&STRANGER).one(1u64);
}

#[test]
#[should_panic(expected = "out of its order")]
fn a_family_is_written_once() {
    let mut page = Page::new(&CATALOG, Format::Classic);
    page.family(&OPEN).one(1u64);
    page.family(&OPEN).one(1u64);
}

#[test]
#[should_panic(expected = "has the labels")]
fn a_row_has_its_familys_labels() {
    let mut page = Page::new(&CATALOG, Format::Classic);
    let alone = page.set(&ALONE, &[]);
    page.family(&REQUESTS).add(&alone, &["200"], 1u64);
}
