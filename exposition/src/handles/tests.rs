//! Handles, read back from a page.

use super::*;

static ROUNDS: Family = Family::counter("t_rounds", "Rounds").by(&["outcome"]);
static OPEN: Family = Family::gauge("t_open", "Open");
static TOOK: Family = Family::histogram("t_took_seconds", "Took");
static CATALOG: [&Family; 3] = [&ROUNDS, &OPEN, &TOOK];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Good,
    Bad,
}

impl Words for Outcome {
    fn words(&self) -> Vec<Cow<'static, str>> {
        vec![format!("{self:?}").into()]
    }
}

#[test]
fn clones_are_one_number_and_the_page_has_the_catalogs_order() {
    let mut registry = Registry::new(&CATALOG);
    let (rounds, open) = (Each::<Outcome, Counter>::default(), Gauge::default());
    let took = Histogram::new(&[0.1, 1.0]);
    registry.register(&TOOK, took.clone());
    registry.register(&OPEN, open.clone());
    registry.register(&ROUNDS, rounds.clone());
    rounds.of(&Outcome::Good).inc();
    rounds.clone().of(&Outcome::Good).inc_by(2);
    rounds.of(&Outcome::Bad).inc();
    open.set(3);
    open.inc();
    open.dec();
    for value in [0.1, 0.5, 7.0, f64::NAN] {
        took.observe(value);
    }
    let page = String::from_utf8(registry.render(Format::Classic, |_| {})).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        rows,
        [
            "t_rounds_total{outcome=\"Good\"} 3",
            "t_rounds_total{outcome=\"Bad\"} 1",
            "t_open 3",
            "t_took_seconds_bucket{le=\"0.1\"} 1",
            "t_took_seconds_bucket{le=\"1.0\"} 2",
            "t_took_seconds_bucket{le=\"+Inf\"} 3",
            "t_took_seconds_sum 7.6",
            "t_took_seconds_count 3",
        ]
    );
}

#[test]
fn a_power_of_two_counts_in_the_bucket_that_it_ends() {
    let histogram = Histogram::new(&[1.0]);
    for value in [0.0, 1.0, 1.01, 1e300, -1.0] {
        histogram.observe(value);
    }
    let counted = histogram.0.lock().unwrap();
    assert_eq!(counted.zero, 2);
    assert_eq!(counted.native, BTreeMap::from([(0, 1), (1, 1), (160, 1)]));
}
