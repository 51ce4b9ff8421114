//! The eventlogs of a job, and what they say of its end.

use flux_client::{Client, RpcError, Stream};
use flux_protocol::eventlog::Event;
use flux_protocol::fluid::JobId;
use flux_protocol::message::Nodeid;
use flux_protocol::rpc::job_info::{self, EventlogWatchRequest, EventlogWatchResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::signal::Ended;

/// Events as they come; `None` at the end of the log.
#[derive(Debug)]
pub(crate) struct Events(Stream<EventlogWatchResponse>);

/// A fatal event that is not an exit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Exception {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// 0 is fatal.
    pub(crate) severity: i64,
    #[serde(default)]
    pub(crate) note: String,
}

/// How a job has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct End {
    t_submit: f64,
    t_run: f64,
    t_cleanup: f64,
    /// Of wait(2).
    pub(crate) waitstatus: Option<i32>,
    /// The first of the most severe.
    exception: Option<Exception>,
}

#[derive(Deserialize)]
struct Finish {
    status: i32,
}

/// Follow a log, such as `eventlog` or `guest.exec.eventlog`; `flags` are bits of
/// [`job_info::watch`].
pub(crate) fn watch(flux: &Client, id: JobId, path: &str, flags: u32) -> Result<Events, RpcError> {
    let request = EventlogWatchRequest { id, path: path.to_owned(), flags: i64::from(flags) };
    Ok(Events(flux.stream::<job_info::EventlogWatch>(Nodeid::ANY, &request)?))
}

/// Wait for the end of a job. ENOENT: there is none of that id.
pub(crate) async fn result(flux: &Client, id: JobId) -> Result<End, RpcError> {
    let mut events = watch(flux, id, "eventlog", 0)?;
    let mut end = End::default();
    while let Some(event) = events.next().await? {
        end.see(&event);
    }
    Ok(end)
}

// === impl Events ===

impl Events {
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, RpcError> {
        while let Some(response) = self.0.next().await? {
            // What is no event is left out: there is nothing to be done about it here.
            if let Ok(event) = Event::decode(response.event.trim_end()) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

// === impl End ===

impl End {
    pub(crate) fn see(&mut self, event: &Event) {
        match event.name.as_str() {
            "submit" => self.t_submit = event.timestamp,
            "alloc" => self.t_run = event.timestamp,
            "finish" => {
                self.waitstatus = event.context_as::<Finish>().ok().map(|finish| finish.status);
                self.t_cleanup = event.timestamp;
            }
            "exception" => {
                let Ok(exception) = event.context_as::<Exception>() else { return };
                if exception.severity == 0 && self.t_cleanup == 0.0 {
                    self.t_cleanup = event.timestamp;
                }
                let known = self.exception.as_ref().map(|known| known.severity);
                if known.is_none_or(|known| exception.severity < known) {
                    self.exception = Some(exception);
                }
            }
            _ => {}
        }
    }

    /// As shells report it; jobs that ended by an exception alone have `exception_code`.
    pub(crate) fn code(&self, exception_code: u8) -> u8 {
        let code = self.waitstatus.map_or(0, |status| Ended::from_status(status).code());
        if self.fatal().is_some() { code.max(exception_code) } else { code }
    }

    /// The exception that has ended the job.
    pub(crate) fn fatal(&self) -> Option<&Exception> {
        self.exception.as_ref().filter(|exception| exception.severity == 0)
    }

    /// As the library's result call tells it.
    pub(crate) fn to_json(&self, id: JobId) -> Value {
        let result = match (self.fatal(), self.waitstatus) {
            (Some(exception), _) if exception.kind == "cancel" => 4,
            (Some(exception), _) if exception.kind == "timeout" => 8,
            (None, Some(0)) => 1,
            _ => 2,
        };
        let mut json = json!({
            "id": id.0,
            "result": result,
            "t_submit": self.t_submit,
            "t_run": self.t_run,
            "t_cleanup": self.t_cleanup,
            "exception_occurred": self.exception.is_some(),
        });
        if let (Some(exception), Some(members)) = (&self.exception, json.as_object_mut()) {
            members.insert("exception_type".to_owned(), json!(exception.kind));
            members.insert("exception_note".to_owned(), json!(exception.note));
            members.insert("exception_severity".to_owned(), json!(exception.severity));
        }
        if let (Some(status), Some(members)) = (self.waitstatus, json.as_object_mut()) {
            members.insert("waitstatus".to_owned(), json!(status));
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lines: &[&str]) -> End {
        let mut end = End::default();
        for line in lines {
            end.see(&Event::decode(line).unwrap());
        }
        end
    }

    #[test]
    fn the_first_of_the_most_severe_exceptions_counts() {
        let cancel = r#"{"timestamp":1.0,"name":"exception","context":{"type":"cancel","severity":0,"note":"why"}}"#;
        let hint =
            r#"{"timestamp":1.0,"name":"exception","context":{"type":"x","severity":3,"note":""}}"#;
        let end = end(&[hint, cancel, &cancel.replace("cancel", "other")]);
        assert_eq!(end.exception.as_ref().unwrap().kind, "cancel");
        assert_eq!((end.code(1), end.code(40)), (1, 40));
        assert_eq!(end.to_json(JobId(7))["result"], 4);
    }

    #[test]
    fn an_exception_that_is_not_fatal_is_told_and_changes_no_code() {
        let lines = [
            r#"{"timestamp":1.0,"name":"exception","context":{"type":"x","severity":3,"note":""}}"#,
            r#"{"timestamp":2.0,"name":"finish","context":{"status":0}}"#,
        ];
        let end = end(&lines);
        assert_eq!(end.code(1), 0);
        let json = end.to_json(JobId(7));
        assert_eq!((&json["result"], &json["exception_severity"]), (&json!(1), &json!(3)));
    }

    #[test]
    fn codes_are_those_of_shells() {
        let finish = |status: i32| {
            let line =
                format!(r#"{{"timestamp":2.0,"name":"finish","context":{{"status":{status}}}}}"#);
            end(&[&line])
        };
        assert_eq!(finish(0x300).code(1), 3);
        assert_eq!(finish(9).code(1), 137);
        assert_eq!(finish(0).to_json(JobId(1))["result"], 1);
    }
}
