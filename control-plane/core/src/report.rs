//! What became of each object: the data of its status conditions, and of messages to a person.
//!
//! Where it stands: the second output of *compile*. A folder's watch prints it with file and line; in
//! Kubernetes it is written to the objects' status.
//!
//! Invariant: every refusal names the object, the place in it, and what to do.

use std::collections::BTreeMap;

use weft_k8s::TargetRef;

use crate::model::{Meta, ObjectKey, ParentRef, Position};

/// What became of all objects that can be refused: routes, policies, settings, and whatever else has
/// something to be said about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// By object.
    pub objects: BTreeMap<ObjectKey, ObjectReport>,
}

/// What became of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectReport {
    /// Where the object was written.
    pub position: Option<Position>,
    /// Generation of the object that this is about.
    pub generation: Option<i64>,
    /// What tells the object from an earlier one of its name.
    pub uid: Option<String>,
    /// What became of it, by what it attaches to. A route that attaches to nothing of ours has none.
    pub verdicts: Vec<Verdict>,
    /// Things a person should know that change no condition.
    pub warnings: Vec<String>,
}

/// What became of an object at one of the things that it attaches to.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What it attaches to.
    pub subject: Subject,
    /// Conditions, Accepted first.
    pub conditions: Vec<Condition>,
}

/// What an object attaches to.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// Nothing in particular: the verdict is on the object.
    Object,
    /// A parent of a route.
    Parent(ParentRef),
    /// A target of a policy.
    Target(TargetRef),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: ConditionType,
    /// True or False.
    pub status: bool,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// Types of condition. Source: Gateway API, route and policy status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object is in force.
    Accepted,
    /// Everything that the object refers to is there.
    ResolvedRefs,
    /// Some rules of the object are not in force as written. Only ever True.
    PartiallyInvalid,
}

impl ConditionType {
    /// The text in a status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::PartiallyInvalid => "PartiallyInvalid",
        }
    }
}

/// Reasons of conditions. Source: Gateway API, route and policy status; Conflicted on routes: GEP-1294.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object is in force.
    Accepted,
    /// References are good.
    ResolvedRefs,
    /// A value or field is not supported, or not valid.
    UnsupportedValue,
    /// Filters exclude each other.
    IncompatibleFilters,
    /// The parent or its port is not there, or cannot have routes.
    NoMatchingParent,
    /// Another object has precedence.
    Conflicted,
    /// The target of a policy is not there.
    TargetNotFound,
    /// The policy is not valid.
    Invalid,
    /// A backend is of a kind that cannot serve.
    InvalidKind,
    /// A backend or its port is not there.
    BackendNotFound,
    /// A backend's port speaks something that the route cannot.
    UnsupportedProtocol,
}

impl Reason {
    /// The text in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::IncompatibleFilters => "IncompatibleFilters",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::Conflicted => "Conflicted",
            Self::TargetNotFound => "TargetNotFound",
            Self::Invalid => "Invalid",
            Self::InvalidKind => "InvalidKind",
            Self::BackendNotFound => "BackendNotFound",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

impl Condition {
    /// Accepted, without reservation.
    pub fn accepted() -> Self {
        Self {
            kind: ConditionType::Accepted,
            status: true,
            reason: Reason::Accepted,
            message: "in force".to_owned(),
        }
    }

    /// Not accepted.
    pub fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self { kind: ConditionType::Accepted, status: false, reason, message: message.into() }
    }

    /// Everything referred to is there.
    pub fn resolved() -> Self {
        Self {
            kind: ConditionType::ResolvedRefs,
            status: true,
            reason: Reason::ResolvedRefs,
            message: "all references are good".to_owned(),
        }
    }

    /// Something referred to is not there, or of no use.
    pub fn unresolved(reason: Reason, message: impl Into<String>) -> Self {
        Self { kind: ConditionType::ResolvedRefs, status: false, reason, message: message.into() }
    }

    /// Whether a person has something to do.
    pub fn is_problem(&self) -> bool {
        match self.kind {
            ConditionType::Accepted | ConditionType::ResolvedRefs => !self.status,
            ConditionType::PartiallyInvalid => self.status,
        }
    }
}

impl ObjectReport {
    /// The condition of a type at the first thing the object attaches to.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.verdicts.first()?.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether the object is in force wherever it attaches.
    pub fn is_accepted(&self) -> bool {
        let conditions = self.verdicts.iter().flat_map(|verdict| &verdict.conditions);
        conditions
            .filter(|condition| condition.kind == ConditionType::Accepted)
            .all(|accepted| accepted.status)
    }

    /// What a person has to act on, each once.
    pub fn problems(&self) -> Vec<&Condition> {
        let mut problems: Vec<&Condition> = Vec::new();
        for condition in self.verdicts.iter().flat_map(|verdict| &verdict.conditions) {
            if condition.is_problem() && !problems.contains(&condition) {
                problems.push(condition);
            }
        }
        problems
    }
}

impl Report {
    /// The entry of an object, made if there is none.
    pub(crate) fn entry(&mut self, meta: &Meta) -> &mut ObjectReport {
        self.objects.entry(meta.key.clone()).or_insert_with(|| ObjectReport {
            position: meta.position.clone(),
            generation: meta.generation,
            uid: meta.uid.clone(),
            ..ObjectReport::default()
        })
    }

    /// Notes something that changes no condition.
    pub(crate) fn warn(&mut self, meta: &Meta, warning: impl Into<String>) {
        self.entry(meta).warnings.push(warning.into());
    }

    /// One line a problem or warning, with file, line and object: what a terminal shows.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, object) in &self.objects {
            let place = object.position.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
            for condition in object.problems() {
                let (kind, reason) = (condition.kind.as_str(), condition.reason.as_str());
                lines.push(format!("{place}{key}: {kind}/{reason}: {}", condition.message));
            }
            lines.extend(object.warnings.iter().map(|warning| format!("{place}{key}: warning: {warning}")));
        }
        lines
    }
}
