//! What the half without privilege asks of the other: keys and values (RFC 38), arrays as
//! `NAME.0`, `NAME.1` and so on, the environment as `env.NAME`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use flux_sign::kv::{self, Value};

use crate::environment::{Environment, is_name};
use crate::fatal::Fatal;

/// Longest message; a request that was signed is the most of it.
pub(crate) const MAX_LEN: u64 = flux_sign::MAX_LEN as u64 + (4 << 20);

/// Every value is a string.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pairs: Vec<(String, Vec<u8>)>,
}

impl Message {
    pub(crate) fn new(cmd: &str) -> Message {
        Message::default().with("cmd", cmd)
    }

    pub(crate) fn with(mut self, key: &str, value: impl AsRef<OsStr>) -> Message {
        self.pairs.push((key.to_owned(), value.as_ref().as_bytes().to_vec()));
        self
    }

    pub(crate) fn with_args(mut self, args: &[OsString]) -> Message {
        for (index, arg) in args.iter().enumerate() {
            self = self.with(&format!("arg.{index}"), arg);
        }
        self
    }

    pub(crate) fn with_env<'a>(
        mut self,
        variables: impl Iterator<Item = (&'a str, &'a OsStr)>,
    ) -> Message {
        for (name, value) in variables {
            // Of a variable that is there twice, programs see the first.
            let key = format!("env.{name}");
            if self.get(&key).is_none() {
                self = self.with(&key, value);
            }
        }
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let pairs: Vec<(&str, Value<'_>)> =
            self.pairs.iter().map(|(key, value)| (key.as_str(), Value::Str(value))).collect();
        kv::encode(&pairs)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Fatal> {
        let malformed = || Fatal::new("malformed message from privsep child");
        let pairs = kv::decode(bytes).map_err(|_| malformed())?;
        let pairs = pairs.into_iter().map(|(key, value)| match value {
            Value::Str(text) => Ok((key.to_owned(), text.to_vec())),
            _ => Err(malformed()),
        });
        Ok(Message { pairs: pairs.collect::<Result<_, _>>()? })
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn str(&self, key: &str) -> Result<&str, Fatal> {
        let text = self.get(key).and_then(|value| std::str::from_utf8(value).ok());
        text.ok_or_else(|| Fatal::new(format!("privsep child did not send {key}")))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T, Fatal> {
        let number = self.str(key)?.parse();
        number.map_err(|_| Fatal::new(format!("privsep child did not send {key}")))
    }

    pub(crate) fn args(&self) -> Vec<OsString> {
        (0..)
            .map_while(|index| self.get(&format!("arg.{index}")))
            .map(|value| OsString::from_vec(value.to_vec()))
            .collect()
    }

    pub(crate) fn env(&self) -> Environment {
        self.pairs
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix("env.").filter(|name| is_name(name))?;
                Some((name.to_owned(), OsString::from_vec(value.clone())))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let args = [OsString::from("/bin/sh"), OsString::from_vec(vec![b'a', 0xff])];
        let env = [("FLUX_X", OsStr::new("1")), ("FLUX_X", OsStr::new("2"))];
        let sent = Message::new("exec").with_args(&args).with_env(env.into_iter()).with("n", "-3");
        let message = Message::decode(&sent.encode()).unwrap();
        assert_eq!(message, sent);
        assert_eq!(message.str("cmd").unwrap(), "exec");
        assert_eq!(message.number::<i32>("n").unwrap(), -3);
        assert_eq!(message.args(), args);
        assert_eq!(message.env(), [("FLUX_X".to_owned(), OsString::from("1"))]);
    }

    #[test]
    fn a_child_that_was_taken_over_sends_nothing_that_is_believed() {
        assert!(Message::decode(b"cmd\0sexec").is_err());
        assert!(Message::decode(b"cmd\0sexec\0cmd\0srun\0").is_err());
        assert!(Message::decode(b"cmd\0i1\0").is_err());
        let message = Message::decode(b"cmd\0s\xff\0env.A=B\0sx\0env.\0sx\0env.LD PRELOAD\0sx\0");
        let message = message.unwrap();
        assert!(message.str("cmd").is_err());
        assert!(message.env().is_empty());
    }
}
