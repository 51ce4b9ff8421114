//! Questions to `job-list`.

use flux_client::{Client, RpcError};
use flux_protocol::errno::Errno;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_list::{self, ListIdRequest, ListRequest};
use serde_json::{Value, json};

use super::info::JobInfo;
use super::state;
use crate::failure::Failure;

/// Stands for all users.
const ANY_USER: u32 = u32::MAX;

/// States and results; a job matches any of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    states: u32,
    results: u32,
}

/// Which jobs, and what of them.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) attrs: Vec<String>,
    pub(crate) filter: Filter,
    /// User id, or all users.
    pub(crate) userid: u32,
    /// 0 is no limit.
    pub(crate) max_entries: i64,
    /// Seconds since 1970.
    pub(crate) since: f64,
    pub(crate) name: Option<String>,
    pub(crate) queues: Vec<String>,
    /// RFC 31, with the operators of RFC 43.
    pub(crate) constraint: Option<Value>,
}

// === impl Filter ===

impl Filter {
    /// Names with commas between them: of states, results, `pending`, `running` or `active`.
    pub(crate) fn parse(names: &str) -> Result<Filter, Failure> {
        let mut filter = Filter::default();
        for name in names.split(',') {
            match (state::state_mask(name), state::result_mask(name)) {
                (Some(mask), _) if name.len() > 1 => filter.states |= mask,
                (_, Some(mask)) => filter.results |= mask,
                _ => {
                    let name = name.to_lowercase();
                    return Err(Failure::new(format_args!(
                        "ERROR: Invalid filter specified: {name}"
                    )));
                }
            }
        }
        Ok(filter)
    }

    fn constraint(self) -> Option<Value> {
        let states = json!({ "states": [self.states] });
        let results = json!({ "results": [self.results] });
        match (self.states, self.results) {
            (0, 0) => None,
            (_, 0) => Some(states),
            (0, _) => Some(results),
            (_, _) => Some(json!({ "or": [states, results] })),
        }
    }
}

// === impl Query ===

impl Query {
    /// Those that match, newest first within each kind.
    pub(crate) async fn list(&self, flux: &Client) -> Result<Vec<JobInfo>, RpcError> {
        let request = ListRequest {
            max_entries: self.max_entries,
            attrs: self.attrs.clone(),
            since: self.since,
            constraint: Some(self.constraint()),
            legacy: None,
        };
        let mut stream = flux.stream::<job_list::List>(Nodeid::ANY, &request)?;
        let mut jobs = Vec::new();
        while let Some(response) = stream.next().await? {
            jobs.extend(response.jobs.into_iter().filter_map(JobInfo::new));
        }
        Ok(jobs)
    }

    /// These jobs, whatever else the query says; and what is wrong with the others.
    pub(crate) async fn list_ids(
        &self,
        flux: &Client,
        ids: &[(JobId, String)],
    ) -> Result<(Vec<JobInfo>, Vec<String>), RpcError> {
        let mut pending = Vec::new();
        for (id, _) in ids {
            let request = ListIdRequest { id: *id, attrs: self.attrs.clone(), state: None };
            pending.push(flux.start::<job_list::ListId>(Nodeid::ANY, &request)?);
        }
        let (mut jobs, mut errors) = (Vec::new(), Vec::new());
        for (pending, (_, text)) in pending.into_iter().zip(ids) {
            match pending.await {
                Ok(response) => jobs.extend(JobInfo::new(Value::Object(response.job))),
                Err(e) if e.errno() == Errno::ENOENT => {
                    errors.push(format!("JobID {text} unknown"));
                }
                Err(e @ RpcError::Refused { .. }) => errors.push(format!("rpc: {e}")),
                Err(e) => return Err(e),
            }
        }
        Ok((jobs, errors))
    }

    fn constraint(&self) -> Value {
        let mut all: Vec<Value> = self.constraint.iter().cloned().collect();
        if self.userid != ANY_USER {
            all.push(json!({ "userid": [self.userid] }));
        }
        if let Some(name) = &self.name {
            all.push(json!({ "name": [name] }));
        }
        if !self.queues.is_empty() {
            all.push(json!({ "queue": self.queues }));
        }
        all.extend(self.filter.constraint());
        json!({ "and": all })
    }
}

impl Default for Query {
    fn default() -> Query {
        Query {
            attrs: vec!["all".to_owned()],
            filter: Filter::default(),
            userid: nix::unistd::getuid().as_raw(),
            max_entries: 1000,
            since: 0.0,
            name: None,
            queues: Vec::new(),
            constraint: None,
        }
    }
}

/// The id of a user by name or number; `all` stands for all of them.
pub(crate) fn user(text: &str) -> Option<u32> {
    if text == "all" {
        return Some(ANY_USER);
    }
    if let Ok(Some(user)) = nix::unistd::User::from_name(text) {
        return Some(user.uid.as_raw());
    }
    text.parse().ok()
}

/// [`user`], or the caller where there is no text.
pub(crate) fn user_or_own(text: Option<&str>) -> Result<u32, Failure> {
    match text {
        None => Ok(nix::unistd::getuid().as_raw()),
        Some(text) => user(text)
            .ok_or_else(|| Failure::new(format_args!("ERROR: Invalid user {text} specified"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_constraints() {
        let query = Query {
            filter: Filter::parse("pending,failed").unwrap(),
            userid: 100,
            name: Some("x".to_owned()),
            queues: vec!["batch".to_owned()],
            constraint: Some(json!({ "ranks": ["0"] })),
            ..Query::default()
        };
        let expected = json!({ "and": [
            { "ranks": ["0"] },
            { "userid": [100] },
            { "name": ["x"] },
            { "queue": ["batch"] },
            { "or": [{ "states": [14] }, { "results": [2] }] },
        ]});
        assert_eq!(query.constraint(), expected);
        let all = Query { userid: ANY_USER, ..Query::default() };
        assert_eq!(all.constraint(), json!({ "and": [] }));
    }

    #[test]
    fn unknown_filters_are_refused() {
        assert!(Filter::parse("pending,nope").is_err());
    }

    #[test]
    fn users_have_names_and_numbers() {
        assert_eq!(user("all"), Some(u32::MAX));
        assert_eq!(user("root"), Some(0));
        assert_eq!(user("1234567"), Some(1_234_567));
        assert_eq!(user("no such user"), None);
    }
}
