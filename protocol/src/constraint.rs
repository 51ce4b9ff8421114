//! Job constraints, RFC 31: which nodes a job may run on.

use crate::hostlist::Hostlist;
use crate::idset::Idset;
use crate::r::ResourceSet;
use serde_json::Value;

/// A condition on nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// All of these.
    Properties(Vec<Property>),
    /// One of these hosts.
    Hostlist(Hostlist),
    /// One of these ranks.
    Ranks(Idset),
    And(Vec<Constraint>),
    /// At least one of these; matches when there is none.
    Or(Vec<Constraint>),
    /// Not all of these.
    Not(Vec<Constraint>),
}

/// A property that a node must have, or must not have (`^name`). A host's name counts as one of its
/// properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("constraint must be JSON object")]
    NotAnObject,
    #[error("constraint must only contain 1 element")]
    SeveralOperators,
    #[error("unknown constraint operator: {0}")]
    UnknownOperator(String),
    /// As [`Constraint::python_decode`] reports it, with Python's spelling of a list.
    #[error("unknown constraint operator(s): {0}")]
    PythonOperators(String),
    #[error("properties value must be an array")]
    PropertiesNotAnArray,
    #[error("{0} operator value must be an array")]
    NotAnArray(&'static str),
    #[error("non-string property specified")]
    PropertyNotAString,
    #[error("invalid character '{character}' in property \"{name}\"")]
    PropertyName { name: String, character: char },
    #[error("invalid {kind} '{text}' in {all}")]
    Ids { kind: &'static str, text: String, all: String },
}

// === impl Constraint ===

impl Constraint {
    /// A constraint that all nodes satisfy.
    pub fn anything() -> Self {
        Self::And(Vec::new())
    }

    /// Read a constraint object. `{}` matches anything.
    pub fn decode(json: &Value) -> Result<Self, ConstraintError> {
        let object = json.as_object().ok_or(ConstraintError::NotAnObject)?;
        if object.len() > 1 {
            return Err(ConstraintError::SeveralOperators);
        }
        match object.iter().next() {
            None => Ok(Self::anything()),
            Some((operator, values)) => Self::decode_operator(operator, values),
        }
    }

    /// Read a constraint object as the Python bindings of Flux do, which refuse `{}`.
    pub fn python_decode(json: &Value) -> Result<Self, ConstraintError> {
        match json.as_object() {
            Some(object) if object.is_empty() => Err(ConstraintError::PythonOperators("[]".into())),
            _ => Self::decode(json).map_err(|e| match e {
                ConstraintError::UnknownOperator(name) => {
                    ConstraintError::PythonOperators(format!("['{name}']"))
                }
                other => other,
            }),
        }
    }

    /// The ranks of a set whose nodes satisfy this constraint.
    pub fn matching(&self, resources: &ResourceSet) -> Idset {
        self.within(resources, &resources.ranks())
    }

    fn decode_operator(operator: &str, values: &Value) -> Result<Self, ConstraintError> {
        match operator {
            "properties" => decode_properties(values).map(Self::Properties),
            "hostlist" => decode_hosts(values).map(Self::Hostlist),
            "ranks" => decode_ranks(values).map(Self::Ranks),
            "and" => decode_all("and", values).map(Self::And),
            "or" => decode_all("or", values).map(Self::Or),
            "not" => decode_all("not", values).map(Self::Not),
            other => Err(ConstraintError::UnknownOperator(other.to_owned())),
        }
    }

    /// The ranks among `all` that match.
    fn within(&self, resources: &ResourceSet, all: &Idset) -> Idset {
        match self {
            Self::Properties(properties) => properties
                .iter()
                .fold(all.clone(), |left, property| property.among(resources, &left)),
            Self::Hostlist(hosts) => resources.ranks_on(hosts).intersect(all),
            Self::Ranks(ranks) => all.intersect(ranks),
            Self::And(values) => {
                values.iter().fold(all.clone(), |left, value| value.within(resources, &left))
            }
            Self::Or(values) if values.is_empty() => all.clone(),
            Self::Or(values) => {
                let mut any = Idset::new();
                values.iter().for_each(|value| any.union_with(&value.within(resources, all)));
                any
            }
            Self::Not(values) => {
                let both = values.iter().fold(all.clone(), |left, v| v.within(resources, &left));
                all.difference(&both)
            }
        }
    }
}

// === impl Property ===

impl Property {
    /// Read `name` or `^name`.
    pub fn decode(text: &str) -> Result<Self, ConstraintError> {
        if let Some(character) = text.chars().find(|c| "!&'\"`|()".contains(*c)) {
            return Err(ConstraintError::PropertyName { name: text.to_owned(), character });
        }
        let (name, negated) = match text.strip_prefix('^') {
            Some(name) => (name, true),
            None => (text, false),
        };
        Ok(Self { name: name.to_owned(), negated })
    }

    fn among(&self, resources: &ResourceSet, all: &Idset) -> Idset {
        let mut with = resources.properties().get(&self.name).cloned().unwrap_or_default();
        let named = resources.nodes().filter(|(_, node)| *node.host == *self.name);
        with.extend(named.map(|(rank, _)| rank));
        if self.negated { all.difference(&with) } else { all.intersect(&with) }
    }
}

fn decode_properties(values: &Value) -> Result<Vec<Property>, ConstraintError> {
    let values = values.as_array().ok_or(ConstraintError::PropertiesNotAnArray)?;
    let property = |value: &Value| {
        Property::decode(value.as_str().ok_or(ConstraintError::PropertyNotAString)?)
    };
    values.iter().map(property).collect()
}

fn decode_all(operator: &'static str, values: &Value) -> Result<Vec<Constraint>, ConstraintError> {
    let values = values.as_array().ok_or(ConstraintError::NotAnArray(operator))?;
    values.iter().map(Constraint::decode).collect()
}

fn decode_hosts(values: &Value) -> Result<Hostlist, ConstraintError> {
    let mut hosts = Hostlist::new();
    decode_each("hostlist", "hostlist", values, |text| hosts.append(text).ok())?;
    // Overlapping ranges would be searched again for every node.
    hosts.uniq();
    Ok(hosts)
}

fn decode_ranks(values: &Value) -> Result<Idset, ConstraintError> {
    let mut ranks = Idset::new();
    decode_each("ranks", "idset", values, |text| {
        ranks.union_with(&Idset::decode(text).ok()?);
        Some(())
    })?;
    Ok(ranks)
}

/// Take each string of an array; `take` gives None for one that is malformed.
fn decode_each(
    operator: &'static str,
    kind: &'static str,
    values: &Value,
    mut take: impl FnMut(&str) -> Option<()>,
) -> Result<(), ConstraintError> {
    let list = values.as_array().ok_or(ConstraintError::NotAnArray(operator))?;
    list.iter().try_for_each(|value| {
        let text = value.as_str();
        text.and_then(&mut take).ok_or_else(|| ConstraintError::Ids {
            kind,
            text: text.map_or_else(|| value.to_string(), str::to_owned),
            all: values.to_string(),
        })
    })
}
