//! What of an object makes sense by itself: its values, and whether they are supported.
//!
//! Where it stands: between the model and *compile*. What depends on other objects (parents,
//! backends, targets, conflicts) is decided in *compile*, which writes the rest of the report.
//!
//! A route is treated by the book where the book speaks:
//! - a rule whose matches are not understood is dropped: it can match nothing;
//! - a rule with a filter or field that is not valid or not supported answers 500 (UNAVAILABLE) to what
//!   it matches, with the reason: a filter must not be skipped. While another rule works the route is
//!   Accepted and PartiallyInvalid; when none does, it is not Accepted, and its rules still answer;
//! - a route that is refused whole (too many rules, two rules of one name, a field that concerns the
//!   whole route) attaches to nothing, as if it were not there.
//!
//! Policies fail closed: a rule that is not valid allows nothing, or denies everything.
//!
//! Invariant: nothing that a user wrote is ignored in silence.

pub(crate) mod authorization;
pub(crate) mod filter;
pub(crate) mod matches;
pub(crate) mod route;
pub(crate) mod settings;
pub(crate) mod telemetry;
pub(crate) mod text;

use crate::{
    compile::build,
    model::{Model, Object},
    report::{Reason, Report},
};

/// What became of every object of the model.
pub fn validate(model: &Model) -> Report {
    build(model).report
}

/// What is wrong with an object by itself, whatever else there is: for whoever would rather keep the
/// last good version of a document than take a bad one. Empty: nothing.
pub fn object(object: &Object) -> Vec<String> {
    let mut model = Model::default();
    model.apply(object.clone(), None);
    let routes = model.routes.values().flat_map(|route| route::check(route).complaints());
    let authorizations =
        model.authorizations.values().flat_map(|policy| authorization::check(policy).problems);
    let traffic = model.traffic.values().flat_map(|policy| settings::traffic(&policy.spec).err());
    let tls = model.tls.values().flat_map(|policy| settings::tls(&policy.spec).err());
    let telling = model.telemetry.values().flat_map(|policy| telemetry::check(&policy.spec).err());
    let tls = tls.chain(telling);
    let meshes = model.meshes.values().flat_map(|mesh| settings::mesh(mesh).err());
    let unsupported = model.unsupported.keys().map(|key| unsupported_kind(key.kind.as_str()));
    routes.chain(authorizations).chain(traffic).chain(tls).chain(meshes).chain(unsupported).collect()
}

/// Why a kind is refused.
pub(crate) fn unsupported_kind(kind: &str) -> String {
    format!("{kind} is not supported yet: traffic goes on as if the object were not there")
}

/// Something that is wrong with a part of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Why, for machines.
    pub(crate) reason: Reason,
    /// Why, for a person.
    pub(crate) text: String,
}

impl Problem {
    /// A value or field that is not valid or not supported.
    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self { reason: Reason::UnsupportedValue, text: text.into() }
    }

    /// The same, with the place in front.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.text = format!("{place}: {}", self.text);
        self
    }
}

#[cfg(test)]
mod tests;
