//! Why a piece of configuration was refused.
//!
//! Stands at the end of the configuration's walk: what `adopt` converted is compiled here, and a
//! refusal travels back to the user's object.
//!
//! Invariant: names the field, so that the user knows what to edit.

/// A resource that cannot be compiled; the sidecar keeps the version it had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Invalid {
    /// Where: route, rule and field, e.g. `HTTPRoute shop/canary, rule 2, matches[0].path.regex`.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    /// A refusal of the field at `place`.
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }

    /// The same refusal, seen from one level further out.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.place =
            if self.place.is_empty() { outer.to_owned() } else { format!("{outer}, {}", self.place) };
        self
    }
}
