//! Which jobs to list (RFC 43): `{operator: [values]}`, with `and`, `or` and `not` of others.

use flux_protocol::hostlist::Hostlist;
use flux_protocol::idset::Idset;
use flux_protocol::rpc::job_list::{LegacyConstraint, ListRequest};
use serde_json::{Map, Value};

use super::job::Job;

/// A constraint that was understood.
#[derive(Debug)]
pub(super) enum Constraint {
    All(Vec<Constraint>),
    Any(Vec<Constraint>),
    /// None of these.
    Not(Vec<Constraint>),
    Userid(Vec<u64>),
    Name(Vec<String>),
    Queue(Vec<String>),
    /// A mask of bits.
    States(u64),
    Results(u64),
    Hosts(Hostlist),
    Ranks(Idset),
    /// An attribute that is a time, compared.
    Time {
        attr: String,
        op: Compare,
        value: f64,
    },
}

/// How times are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

/// Stands for every user.
const ANY_USER: u64 = u32::MAX as u64;

impl Constraint {
    /// Without one, or with an empty one, all jobs match. The text says what is wrong.
    pub(super) fn from_request(request: &ListRequest) -> Result<Constraint, String> {
        match (&request.constraint, &request.legacy) {
            (None | Some(Value::Null), None) => Ok(Constraint::All(Vec::new())),
            (None | Some(Value::Null), Some(legacy)) => Ok(Constraint::from_legacy(legacy)),
            (Some(value), _) => Constraint::parse(value),
        }
    }

    fn from_legacy(legacy: &LegacyConstraint) -> Constraint {
        let mut parts = vec![Constraint::Userid(vec![user(legacy.userid)])];
        parts.extend(legacy.name.clone().map(|name| Constraint::Name(vec![name])));
        parts.extend(legacy.queue.clone().map(|queue| Constraint::Queue(vec![queue])));
        parts.extend((legacy.states != 0).then_some(Constraint::States(legacy.states)));
        parts.extend((legacy.results != 0).then_some(Constraint::Results(legacy.results)));
        Constraint::All(parts)
    }

    /// Jobs of a virtual queue are the parent's as well (RFC 33); `queues` is the configuration.
    pub(super) fn with_virtual_queues(mut self, queues: &Map<String, Value>) -> Constraint {
        self.add_virtual_queues(queues);
        self
    }

    fn add_virtual_queues(&mut self, queues: &Map<String, Value>) {
        match self {
            Constraint::All(parts) | Constraint::Any(parts) | Constraint::Not(parts) => {
                parts.iter_mut().for_each(|part| part.add_virtual_queues(queues));
            }
            Constraint::Queue(names) => {
                let is_below = |table: &Value| {
                    let parent = table.get("parent").and_then(Value::as_str);
                    parent.is_some_and(|parent| names.iter().any(|name| name == parent))
                };
                let below = queues.iter().filter(|(_, table)| is_below(table));
                let below: Vec<String> = below.map(|(name, _)| name.clone()).collect();
                names.extend(below);
            }
            _ => {}
        }
    }

    fn parse(value: &Value) -> Result<Constraint, String> {
        let Value::Object(object) = value else {
            return Err("constraint must be JSON object".to_owned());
        };
        let mut parts = Vec::new();
        for (operator, values) in object {
            let Value::Array(values) = values else {
                return Err(format!("operator {operator} values not an array"));
            };
            parts.push(Constraint::operator(operator, values)?);
        }
        if parts.len() == 1 {
            parts.pop().ok_or_else(String::new)
        } else {
            Ok(Constraint::All(parts))
        }
    }

    fn operator(operator: &str, values: &[Value]) -> Result<Constraint, String> {
        let wrong = |what: &str| format!("{operator} value must be {what}");
        let nested = || values.iter().map(Constraint::parse).collect::<Result<Vec<_>, _>>();
        let texts = || -> Result<Vec<String>, String> {
            values
                .iter()
                .map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong("a string")))
                .collect()
        };
        Ok(match operator {
            "and" => Constraint::All(nested()?),
            "or" => Constraint::Any(nested()?),
            "not" => Constraint::Not(nested()?),
            "userid" => Constraint::Userid(
                values
                    .iter()
                    .map(|v| v.as_i64().map(user).ok_or_else(|| wrong("an integer")))
                    .collect::<Result<_, _>>()?,
            ),
            "name" => Constraint::Name(texts()?),
            "queue" => Constraint::Queue(texts()?),
            "states" => Constraint::States(mask(values, state_bit)?),
            "results" => Constraint::Results(mask(values, result_bit)?),
            "hostlist" => {
                let mut hosts = Hostlist::default();
                for text in texts()? {
                    let list: Hostlist =
                        text.parse().map_err(|_| format!("invalid hostlist '{text}'"))?;
                    hosts.append_list(&list);
                }
                Constraint::Hosts(hosts)
            }
            "ranks" => {
                let mut ranks = Idset::new();
                for text in texts()? {
                    let set: Idset = text.parse().map_err(|_| format!("invalid ranks '{text}'"))?;
                    ranks.union_with(&set);
                }
                Constraint::Ranks(ranks)
            }
            "t_submit" | "t_depend" | "t_priority" | "t_sched" | "t_run" | "t_cleanup"
            | "t_inactive" => {
                let [text] = texts()?.try_into().map_err(|_| wrong("one comparison"))?;
                let (op, number) = compare(&text).ok_or_else(|| wrong("a comparison"))?;
                Constraint::Time { attr: operator.to_owned(), op, value: number }
            }
            _ => return Err(format!("unknown constraint operator: {operator}")),
        })
    }

    /// Err: it took more comparisons than there were left.
    pub(super) fn matches(&self, job: &Job, budget: &mut Budget) -> Result<bool, Exhausted> {
        let text = |name: &str| job.attr(name).and_then(Value::as_str).unwrap_or_default();
        Ok(match self {
            Constraint::All(parts) => all(parts, job, budget)?,
            Constraint::Any(parts) => {
                let mut found = parts.is_empty();
                for part in parts {
                    found = found || part.matches(job, budget)?;
                }
                found
            }
            Constraint::Not(parts) => !all(parts, job, budget)?,
            Constraint::Userid(ids) => {
                budget.find(ids, |id| **id == ANY_USER || **id == u64::from(job.userid))?
            }
            Constraint::Name(names) => budget.find(names, |name| *name == text("name"))?,
            Constraint::Queue(names) => budget.find(names, |name| *name == text("queue"))?,
            Constraint::States(mask) => {
                budget.spend(1)?;
                u64::from(job.state as u32) & mask != 0
            }
            Constraint::Results(mask) => {
                budget.spend(1)?;
                let ended = job.attr("result").is_some();
                ended && job.result.is_some_and(|bit| u64::from(bit) & mask != 0)
            }
            Constraint::Hosts(hosts) => match job.nodelist().parse::<Hostlist>() {
                Ok(list) => budget.find(list.iter(), |host| hosts.find(host).is_ok())?,
                Err(_) => false,
            },
            Constraint::Ranks(ranks) => match job.ranks().parse::<Idset>() {
                Ok(set) => {
                    budget.spend(set.count().min(ranks.count()).max(1))?;
                    set.intersects(ranks)
                }
                Err(_) => false,
            },
            Constraint::Time { attr, op, value } => {
                budget.spend(1)?;
                let time = job.attr(attr).and_then(Value::as_f64);
                time.is_some_and(|time| match op {
                    Compare::Greater => time > *value,
                    Compare::GreaterEqual => time >= *value,
                    Compare::Less => time < *value,
                    Compare::LessEqual => time <= *value,
                })
            }
        })
    }
}

fn all(parts: &[Constraint], job: &Job, budget: &mut Budget) -> Result<bool, Exhausted> {
    for part in parts {
        if !part.matches(job, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many comparisons a request may still cause. Anybody may ask for a listing, and nobody is
/// answered while jobs are compared.
#[derive(Debug)]
pub(super) struct Budget {
    /// Without a limit when `None`.
    left: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Excessive comparisons made, limit search via states or since")]
pub(super) struct Exhausted;

impl Budget {
    pub(super) fn new(max: Option<u64>) -> Budget {
        Budget { left: max }
    }

    fn spend(&mut self, comparisons: u64) -> Result<(), Exhausted> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(comparisons).ok_or(Exhausted)?;
        }
        Ok(())
    }

    /// Compare one after the other, up to the first that is it.
    fn find<T>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        is_it: impl Fn(&T) -> bool,
    ) -> Result<bool, Exhausted> {
        for value in values {
            self.spend(1)?;
            if is_it(&value) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn user(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(ANY_USER)
}

/// Bits, given as numbers or by name.
fn mask(values: &[Value], by_name: fn(&str) -> Option<u64>) -> Result<u64, String> {
    values.iter().try_fold(0, |mask, value| {
        let bits = match value {
            Value::String(name) => by_name(&name.to_lowercase()),
            value => value.as_u64(),
        };
        bits.map(|bits| mask | bits).ok_or_else(|| format!("invalid value {value}"))
    })
}

fn state_bit(name: &str) -> Option<u64> {
    Some(match name {
        "depend" => 2,
        "priority" => 4,
        "sched" => 8,
        "run" => 16,
        "cleanup" => 32,
        "inactive" => 64,
        "pending" => 2 | 4 | 8,
        "running" => 16 | 32,
        "active" => 2 | 4 | 8 | 16 | 32,
        _ => return None,
    })
}

fn result_bit(name: &str) -> Option<u64> {
    Some(match name {
        "completed" => 1,
        "failed" => 2,
        "canceled" => 4,
        "timeout" => 8,
        _ => return None,
    })
}

fn compare(text: &str) -> Option<(Compare, f64)> {
    let ops = [
        (">=", Compare::GreaterEqual),
        ("<=", Compare::LessEqual),
        (">", Compare::Greater),
        ("<", Compare::Less),
    ];
    ops.into_iter()
        .find_map(|(prefix, op)| Some((op, text.strip_prefix(prefix)?.trim().parse().ok()?)))
}
