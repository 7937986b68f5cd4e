//! One page: families in the catalog's order, each with its rows.
//!
//! Invariant: what is not in the catalog, or out of its order, is not written, and fails a test.
//! Invariant: a row has exactly its family's labels.

use crate::family::{Family, Group, Kind};
use crate::format::Format;
use crate::histogram::Reading;
use crate::{text, wire};

/// A row's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// A state that may be below zero.
    Signed(i64),
    /// Seconds, shares and the like.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl Number {
    /// As protobuf has it.
    #[must_use]
    pub fn real(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Signed(value) => value as f64,
            Self::Real(value) => value,
        }
    }
}

/// A group's labels with their values, written once for all rows that have them.
#[derive(Clone, Debug, Default)]
pub struct Set {
    labels: usize,
    written: Vec<u8>,
}

impl Set {
    /// No labels.
    pub const NONE: Self = Self { labels: 0, written: Vec::new() };
}

/// A page that is being written.
#[derive(Debug)]
pub struct Page {
    catalog: &'static [&'static Family],
    format: Format,
    next: usize,
    out: Vec<u8>,
    /// The rows of a protobuf family, whose length comes before them.
    rows: Vec<u8>,
    /// One row's labels and one message, used again for each.
    row: Vec<u8>,
    message: Vec<u8>,
}

impl Page {
    /// An empty page for families of this catalog.
    #[must_use]
    pub fn new(catalog: &'static [&'static Family], format: Format) -> Self {
        let (out, rows, row, message) = Default::default();
        Self { catalog, format, next: 0, out, rows, row, message }
    }

    /// A page that has been written, or what was not taken of it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.end();
        self.out
    }

    /// Writes the page's end; nothing comes behind it.
    pub fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.next = self.catalog.len();
    }

    /// What has been written since it was last taken: a long page need not be held whole.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The values of a group's labels, for this page.
    #[must_use]
    pub fn set(&self, group: &Group, values: &[&str]) -> Set {
        debug_assert_eq!(group.labels.len(), values.len(), "labels of {}", group.name);
        let mut set = Set { labels: values.len(), written: Vec::with_capacity(512) };
        for (name, value) in group.labels.iter().zip(values) {
            label(self.format, &mut set.written, name, value);
        }
        set
    }

    /// Begins a family.
    pub fn family(&mut self, family: &'static Family) -> Rows<'_> {
        let ahead = self.catalog.get(self.next..).unwrap_or_default();
        let place = ahead.iter().position(|known| std::ptr::eq(*known, family));
        debug_assert!(place.is_some(), "{} is not in the catalog, or out of its order", family.name);
        let known = place.is_some();
        self.next += place.map_or(0, |place| place + 1);
        if known && self.format != Format::Protobuf {
            text::head(&mut self.out, family, self.format);
        }
        Rows { page: self, family, known }
    }

    /// More rows of the family that was begun last; of a text only, because a message is whole.
    pub fn more(&mut self, family: &'static Family) -> Rows<'_> {
        let last = self.next.checked_sub(1).and_then(|last| self.catalog.get(last));
        let known = last.is_some_and(|last| std::ptr::eq(*last, family)) && self.format != Format::Protobuf;
        debug_assert!(known, "{} is not what was written last", family.name);
        Rows { page: self, family, known }
    }
}

fn label(format: Format, out: &mut Vec<u8>, name: &str, value: &str) {
    if format == Format::Protobuf { wire::label(out, name, value) } else { text::label(out, name, value) }
}

/// The rows of one family.
#[derive(Debug)]
pub struct Rows<'p> {
    page: &'p mut Page,
    family: &'static Family,
    known: bool,
}

impl Rows<'_> {
    /// One row: the shared labels, the values of the family's own, and the number.
    pub fn add(&mut self, set: &Set, by: &[&str], value: impl Into<Number>) {
        debug_assert_ne!(self.family.kind, Kind::Histogram, "{}", self.family.name);
        if !self.labels(set, by) {
            return;
        }
        let (page, value) = (&mut *self.page, value.into());
        match page.format {
            Format::Protobuf => wire::number(&mut page.message, self.family.kind, value),
            Format::Classic | Format::OpenMetrics => {
                text::number(&mut page.out, self.family, &page.row, value);
            }
        }
        self.metric();
    }

    /// A row without labels.
    pub fn one(&mut self, value: impl Into<Number>) {
        self.add(&Set::NONE, &[], value);
    }

    /// One histogram.
    pub fn histogram(&mut self, set: &Set, by: &[&str], reading: &Reading<'_>) {
        debug_assert_eq!(self.family.kind, Kind::Histogram, "{}", self.family.name);
        if !self.labels(set, by) {
            return;
        }
        let page = &mut *self.page;
        match page.format {
            Format::Protobuf => wire::histogram(&mut page.message, reading),
            Format::Classic => text::histogram(&mut page.out, self.family, &page.row, reading, false),
            Format::OpenMetrics => text::histogram(&mut page.out, self.family, &page.row, reading, true),
        }
        self.metric();
    }

    /// Writes the labels of a row; false when they are not the family's.
    fn labels(&mut self, set: &Set, by: &[&str]) -> bool {
        let (family, page) = (self.family, &mut *self.page);
        let fits = set.labels == family.of.labels.len() && by.len() == family.by.len();
        debug_assert!(fits, "{} has the labels {:?} {:?}", family.name, family.of.labels, family.by);
        page.message.clear();
        page.row.clear();
        page.row.extend_from_slice(&set.written);
        for (name, value) in family.by.iter().zip(by) {
            label(page.format, &mut page.row, name, value);
        }
        fits && self.known
    }

    /// Of a protobuf row: labels and message together.
    fn metric(&mut self) {
        let page = &mut *self.page;
        if page.format == Format::Protobuf {
            wire::metric(&mut page.rows, &page.row, &page.message);
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        let page = &mut *self.page;
        if page.format == Format::Protobuf && !page.rows.is_empty() {
            wire::family(&mut page.out, self.family, &page.rows, &mut page.message);
            page.rows.clear();
        }
    }
}

#[cfg(test)]
mod tests;
