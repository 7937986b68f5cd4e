//! What a scraper reads: how Weft's processes describe what they count, and write it down for Prometheus.
//!
//! ```text
//! Family (name, kind, labels, help)  ── one table a process, the catalog ──▶ docs/metrics.md
//!      │
//!      ▼
//! Page ── Rows ──▶ OpenMetrics text, with exemplars
//!              ├─▶ Prometheus' classic text
//!              └─▶ Prometheus' protobuf, with native histograms
//! ```
//!
//! Invariant: a page holds only families of its catalog, each once and in the catalog's order, so that two
//! scrapes of the same numbers are the same bytes.
//! Invariant: nothing here is on a request's path; what counts there is the sidecar's own.

pub mod family;
pub mod format;
pub mod handles;
pub mod histogram;
pub mod page;
pub mod process;
pub mod reference;
mod text;
mod wire;

pub use family::{Family, Group, Kind};
pub use format::Format;
pub use histogram::{Bucket, Exemplar, Native, Reading};
pub use page::{Number, Page, Rows, Set};
