//! Data of a job's output (RFC 24).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flux_protocol::eventlog::Event;
use serde::Deserialize;

/// A piece of output of tasks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) stderr: bool,
    /// Idset.
    tasks: String,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Wire {
    stream: String,
    rank: String,
    data: Option<String>,
    encoding: Option<String>,
}

/// Nothing for other events, and for the end of a stream.
pub(super) fn data(event: &Event) -> Option<Data> {
    if event.name != "data" {
        return None;
    }
    let wire: Wire = event.context_as().ok()?;
    let data = wire.data?;
    let bytes = match wire.encoding.as_deref() {
        Some("base64") => STANDARD.decode(data).ok()?,
        _ => data.into_bytes(),
    };
    Some(Data { stderr: wire.stream == "stderr", tasks: wire.rank, bytes })
}

impl Data {
    /// As it is, or each line behind the tasks' ranks.
    pub(super) fn bytes(&self, label: bool) -> Vec<u8> {
        if !label {
            return self.bytes.clone();
        }
        let mut out = Vec::with_capacity(self.bytes.len() + 16);
        for line in self.bytes.split_inclusive(|byte| *byte == b'\n') {
            out.extend_from_slice(self.tasks.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(line);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(context: &str) -> Option<Data> {
        let line = format!(r#"{{"timestamp":1.0,"name":"data","context":{context}}}"#);
        data(&Event::decode(&line).unwrap())
    }

    #[test]
    fn lines_are_labelled_with_tasks() {
        let data = decode(r#"{"stream":"stderr","rank":"0-1","data":"a\nb\n"}"#).unwrap();
        assert!(data.stderr);
        assert_eq!(data.bytes(true), b"0-1: a\n0-1: b\n");
        assert_eq!(data.bytes(false), b"a\nb\n");
    }

    #[test]
    fn the_end_of_a_stream_is_no_data() {
        assert_eq!(decode(r#"{"stream":"stdout","rank":"0","eof":true}"#), None);
        let binary = r#"{"stream":"stdout","rank":"0","data":"/w==","encoding":"base64"}"#;
        assert_eq!(decode(binary).unwrap().bytes(false), [0xff]);
    }
}
