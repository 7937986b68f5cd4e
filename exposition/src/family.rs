//! What one metric is: its name, kind, labels and meaning.
//!
//! A process's families stand in one table, its catalog; the page, the reference and the tests read it.
//!
//! Invariant: names and labels are what operators build on: they change by addition only.

/// How a family's numbers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; `_total` is added to the name.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size; `_bucket`, `_sum` and `_count` are added to the name.
    Histogram,
    /// Always 1; what it says is in its labels. `_info` is added to the name.
    Info,
}

impl Kind {
    /// The word in `# TYPE` of OpenMetrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What a row's name has behind the family's.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

/// Labels that several families share, written once for all of them.
#[derive(Debug)]
pub struct Group {
    /// What the reference calls them; empty for none.
    pub name: &'static str,
    /// The labels, in their order.
    pub labels: &'static [&'static str],
}

/// One metric.
#[derive(Debug)]
pub struct Family {
    /// The name without the ending that its kind adds.
    pub name: &'static str,
    /// How its numbers behave.
    pub kind: Kind,
    /// What it counts, for `# HELP` and the reference.
    pub help: &'static str,
    /// The labels that it shares with others.
    pub of: &'static Group,
    /// Its own labels, behind those.
    pub by: &'static [&'static str],
    /// When a process shows it.
    pub appears: &'static str,
}

/// No shared labels.
pub static ALONE: Group = Group { name: "", labels: &[] };

impl Family {
    const fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self { name, kind, help, of: &ALONE, by: &[], appears: "always" }
    }

    /// A counter, named without `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Counter, name, help)
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Gauge, name, help)
    }

    /// A histogram.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Histogram, name, help)
    }

    /// Facts in labels, named without `_info`.
    #[must_use]
    pub const fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Info, name, help)
    }

    /// With these shared labels.
    #[must_use]
    pub const fn of(mut self, group: &'static Group) -> Self {
        self.of = group;
        self
    }

    /// With these labels of its own.
    #[must_use]
    pub const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.by = labels;
        self
    }

    /// Shown only then.
    #[must_use]
    pub const fn appears(mut self, when: &'static str) -> Self {
        self.appears = when;
        self
    }

    /// The name as rows and queries have it; a histogram's without `_bucket`, `_sum` and `_count`.
    #[must_use]
    pub fn exposed(&self) -> String {
        format!("{}{}", self.name, self.kind.suffix())
    }

    /// The unit that the name ends with, where it has one.
    ///
    /// Source: OpenMetrics 1.0, "Unit": base units, as the last part of the name.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let last = self.name.rsplit('_').next()?;
        ["seconds", "bytes"].into_iter().find(|unit| *unit == last)
    }

    /// All labels.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        self.of.labels.iter().chain(self.by).copied()
    }
}
