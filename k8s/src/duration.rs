//! A span of time as users write it: `10s`, `1m30s`, `500ms`.
//!
//! Invariant: a value of this type always has a text form of GEP-2257 (whole milliseconds, at most
//! four groups of five digits).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A span of time, written by the Gateway API's rules (GEP-2257), e.g. `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration(gateway_api::Duration);

impl Duration {
    /// Parses the text form, e.g. `1m30s`.
    ///
    /// # Errors
    /// A sentence for the person who wrote the text, when it is not of GEP-2257's form.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|_| format!("{text:?} is not a duration: write whole hours, minutes, seconds or milliseconds, e.g. 1m30s or 500ms (GEP-2257)"))
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        Self::new(duration.0.as_secs(), duration.0.subsec_nanos())
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": LONGEST })
    }
}

/// Letters of the longest duration: four groups of five digits and a unit. Source: GEP-2257.
const LONGEST: u32 = 28;
/// Form of a duration. Source: GEP-2257.
const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
