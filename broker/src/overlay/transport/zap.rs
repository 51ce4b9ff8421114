//! The authenticator (ZeroMQ RFC 27, ZAP): which public keys may connect as children.
//!
//! libzmq asks it over an in-process socket during each handshake with a child.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;
use flux_cert::PublicKey;

use super::TransportError;
use super::notice::Notice;
use super::socket::{AsyncSocket, Received, register};

/// Where libzmq looks for the authenticator of a context.
const ENDPOINT: &str = "inproc://zeromq.zap.01";
const VERSION: &[u8] = b"1.0";

pub(super) struct Authenticator {
    socket: AsyncSocket,
    /// Names of the children that may connect.
    allowed: RefCell<HashMap<PublicKey, String>>,
}

/// What libzmq asks, as far as it matters.
struct Question {
    id: Bytes,
    address: String,
    /// None if the child uses another mechanism than CURVE.
    key: Option<PublicKey>,
}

// === impl Authenticator ===

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Must be there before the first socket of the context binds.
    pub(super) fn new(context: &zmq::Context) -> Result<Self, TransportError> {
        let socket = context.socket(zmq::REP)?;
        socket.set_linger(0)?;
        socket.bind(ENDPOINT)?;
        Ok(Self { socket: register(socket)?, allowed: RefCell::default() })
    }

    pub(super) fn allow(&self, name: &str, key: PublicKey) {
        self.allowed.borrow_mut().insert(key, name.to_owned());
    }

    pub(super) async fn readable(&self) {
        self.socket.readable().await;
    }

    /// Answers one question, and says how. None if there is none.
    pub(super) fn answer_next(&self) -> Option<Notice> {
        let parts = match self.socket.recv() {
            Received::Parts(parts) => parts,
            Received::Oversized => Vec::new(),
            Received::Nothing => return None,
        };
        let question = Question::decode(&parts);
        let allowed = self.allowed.borrow();
        let name = question.key.as_ref().and_then(|key| allowed.get(key));
        let answer = question.answer(name.is_some());
        // A question that is left unanswered fails the handshake, as it should.
        let _ = self.socket.send(None, &answer);
        let Question { address, key, .. } = question;
        Some(match name {
            Some(name) => Notice::ChildAuthenticated { address, name: name.clone() },
            None => Notice::ChildRefused { address, key },
        })
    }
}

// === impl Question ===

impl Question {
    /// Parts: version, request id, domain, address, identity, mechanism, credentials.
    fn decode(parts: &[Bytes]) -> Self {
        let (id, address, key) = match parts {
            [version, id, _domain, address, _identity, mechanism, key]
                if version == VERSION && mechanism.as_ref() == b"CURVE" =>
            {
                let key = <[u8; 32]>::try_from(&**key).ok().map(PublicKey::from_bytes);
                (Some(id), Some(address), key)
            }
            parts => (parts.get(1), parts.get(3), None),
        };
        Self {
            id: id.cloned().unwrap_or_default(),
            address: address.map(|a| String::from_utf8_lossy(a).into_owned()).unwrap_or_default(),
            key,
        }
    }

    /// Parts: version, request id, status code, status text, user id, metadata.
    fn answer(&self, allowed: bool) -> [Bytes; 6] {
        let (code, text) = if allowed { ("200", "OK") } else { ("400", "No access") };
        let user = match &self.key {
            Some(key) if allowed => Bytes::from(key.to_string()),
            _ => Bytes::new(),
        };
        [
            Bytes::from_static(VERSION),
            self.id.clone(),
            Bytes::from_static(code.as_bytes()),
            Bytes::from_static(text.as_bytes()),
            user,
            Bytes::new(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(mechanism: &'static str, key: &'static [u8]) -> Question {
        let parts = ["1.0", "7", "flux", "10.0.0.3", "", mechanism]
            .map(|part| Bytes::from_static(part.as_bytes()));
        let mut parts = parts.to_vec();
        parts.push(Bytes::from_static(key));
        Question::decode(&parts)
    }

    #[test]
    fn question_about_a_curve_key_is_understood() {
        let question = question("CURVE", &[5; 32]);
        assert_eq!(question.key, Some(PublicKey::from_bytes([5; 32])));
        assert_eq!(question.address, "10.0.0.3");
        let answer = question.answer(true);
        assert_eq!(answer[1], "7");
        assert_eq!(answer[2], "200");
        assert_eq!(answer[4], PublicKey::from_bytes([5; 32]).to_string());
    }

    #[test]
    fn question_without_a_curve_key_is_refused_with_its_id() {
        for question in [question("NULL", b""), question("PLAIN", b"me"), question("CURVE", b"x")] {
            assert_eq!(question.key, None);
            let answer = question.answer(false);
            assert_eq!((&answer[1], &answer[2]), (&Bytes::from("7"), &Bytes::from("400")));
        }
        assert_eq!(Question::decode(&[]).answer(false)[2], "400");
    }
}
