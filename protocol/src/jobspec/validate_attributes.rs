//! Rules for attributes: dependencies (RFC 26) and constraints (RFC 31).

use super::validate::{JobspecError, Rules, ensure, members, must, no_other_keys};
use crate::hostlist::Hostlist;
use crate::idset::Idset;
use serde_json::{Map, Value};

pub(super) fn check_attributes(
    attributes: &Map<String, Value>,
    rules: &Rules<'_>,
) -> Result<(), JobspecError> {
    no_other_keys(attributes, &["system", "user"])?;
    let Some(system) = attributes.get("system") else { return Ok(()) };
    let system = system.as_object().ok_or_else(|| must("attributes.system", "a mapping"))?;
    if let Some(dependencies) = system.get("dependencies") {
        let list = dependencies.as_array();
        let list = list.ok_or_else(|| must("attributes.system.dependencies", "a list"))?;
        list.iter().try_for_each(check_dependency)?;
    }
    let Some(constraints) = system.get("constraints") else { return Ok(()) };
    // The hosts of all parts together, so that there is one limit to what they expand to.
    let mut hosts = Hostlist::new();
    check_constraint(constraints, &mut hosts)?;
    match rules.hosts {
        Some(known) => known.check_known(&hosts).map_err(JobspecError::UnknownHosts),
        None => Ok(()),
    }
}

fn check_dependency(dependency: &Value) -> Result<(), JobspecError> {
    let dependency = dependency.as_object().ok_or_else(|| must("dependency", "a mapping"))?;
    let [scheme, value] = members(dependency, ["scheme", "value"])?;
    ensure(scheme.is_string(), "dependency scheme", "a string")?;
    ensure(value.is_string(), "dependency value", "a string")
}

fn check_constraint(constraint: &Value, hosts: &mut Hostlist) -> Result<(), JobspecError> {
    let operators = constraint.as_object().ok_or_else(|| must("constraints", "a mapping"))?;
    for (operator, values) in operators {
        let values = values
            .as_array()
            .ok_or_else(|| must(format!("argument to constraint {operator}"), "a sequence"))?;
        if !["and", "or", "not", "properties", "hostlist", "ranks"].contains(&operator.as_str()) {
            return Err(JobspecError::ConstraintOperator(operator.clone()));
        }
        for value in values {
            check_constraint_value(operator, value, hosts)?;
        }
    }
    Ok(())
}

fn check_constraint_value(
    operator: &str,
    value: &Value,
    hosts: &mut Hostlist,
) -> Result<(), JobspecError> {
    if ["and", "or", "not"].contains(&operator) {
        return check_constraint(value, hosts);
    }
    let string = || must(format!("value of constraint {operator}"), "a string");
    let text = value.as_str().ok_or_else(string)?;
    match operator {
        "properties" if text.contains(['&', '\'', '"', '`', '|', '(', ')']) => {
            Err(JobspecError::PropertyCharacter(text.to_owned()))
        }
        "hostlist" => hosts.append(text).map_err(JobspecError::Hostlist),
        "ranks" => match Idset::decode(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(JobspecError::Idset(text.to_owned())),
        },
        _ => Ok(()),
    }
}
