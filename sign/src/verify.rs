//! Signing and believing.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{Config, Mechanism};
use crate::envelope::{Envelope, decode, encode_unsigned};
use crate::error::SignError;
use crate::{munge, sha256};

/// First byte of what a MUNGE credential carries: a SHA-256 digest follows.
const HASH_TYPE_SHA256: u8 = 1;
/// Seconds by which the clocks of a cluster's hosts may differ.
const SKEW: u64 = 300;

/// What a user has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub userid: u32,
    pub mechanism: Mechanism,
    /// Seconds since 1970 after which the signature is not believed any more, where it has an end.
    pub ends: Option<u64>,
    pub payload: Vec<u8>,
}

/// Sign `payload` as the user of this process, whose real id is `userid`.
pub fn wrap(
    config: &Config,
    mechanism: Mechanism,
    userid: u32,
    payload: &[u8],
) -> Result<String, SignError> {
    let unsigned = encode_unsigned(mechanism.name(), userid, payload);
    let signature = match mechanism {
        Mechanism::None => "none".to_owned(),
        Mechanism::Munge => {
            munge::encode(&config.munge_socket, &stamp(&unsigned)).map_err(SignError::MungeSign)?
        }
    };
    Ok(format!("{unsigned}.{signature}"))
}

/// Sign as a submitter does: the owner of the instance with `none`, anybody else with the
/// `default-type` of the site.
pub fn sign_as_submitter(owner: u32, userid: u32, payload: &[u8]) -> Result<String, SignError> {
    if owner == userid {
        return Ok(wrap_none(userid, payload));
    }
    // A user's own files decide nothing here, so only root's are trusted.
    let config = Config::load(0)?;
    wrap(&config, config.default, userid, payload)
}

/// Sign with the mechanism of this name, which the site need not allow: whoever verifies decides.
pub fn sign_with(mechanism: &str, userid: u32, payload: &[u8]) -> Result<String, SignError> {
    let config = Config::load(0)?;
    let mechanism = Mechanism::from_name(mechanism)
        .ok_or_else(|| SignError::Table(format!("unknown mechanism={mechanism}")))?;
    wrap(&config, mechanism, userid, payload)
}

/// Sign with mechanism `none`, which needs no configuration.
pub fn wrap_none(userid: u32, payload: &[u8]) -> String {
    format!("{}.none", encode_unsigned("none", userid, payload))
}

/// Take apart and verify, as a process of the user `real`.
pub fn unwrap(config: &Config, text: &str, real: u32) -> Result<Request, SignError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    unwrap_at(config, text, real, now)
}

fn unwrap_at(config: &Config, text: &str, real: u32, now: u64) -> Result<Request, SignError> {
    let envelope = decode(text)?;
    let name = &envelope.header.mechanism;
    let mechanism = Mechanism::from_name(name).ok_or_else(|| SignError::Unknown(name.clone()))?;
    if !config.allowed.contains(&mechanism) {
        return Err(SignError::NotAllowed(name.clone()));
    }
    let userid = userid(&envelope)?;
    let ends = match mechanism {
        Mechanism::None => {
            verify_none(&envelope, userid, real)?;
            None
        }
        Mechanism::Munge => {
            let unsigned = text.rsplit_once('.').map_or(text, |(unsigned, _)| unsigned);
            let credential = munge::decode(&config.munge_socket, &envelope.signature)
                .map_err(SignError::MungeVerify)?;
            Some(verify_munge(&credential, unsigned, userid, config.max_ttl, now)?)
        }
    };
    Ok(Request { userid, mechanism, ends, payload: envelope.payload })
}

/// Take apart an envelope of mechanism `none`, whoever it names: for where the sender of a message
/// is known otherwise.
pub fn unwrap_none(text: &str) -> Result<Request, SignError> {
    let envelope = decode(text)?;
    if envelope.header.mechanism != "none" {
        return Err(SignError::NotAllowed(envelope.header.mechanism));
    }
    let userid = userid(&envelope)?;
    verify_none(&envelope, userid, userid)?;
    Ok(Request { userid, mechanism: Mechanism::None, ends: None, payload: envelope.payload })
}

/// The last user id is nobody's: it tells setresuid(2) to change nothing.
fn userid(envelope: &Envelope) -> Result<u32, SignError> {
    let userid = envelope.header.userid;
    u32::try_from(userid).ok().filter(|id| *id != u32::MAX).ok_or(SignError::Userid(userid))
}

fn verify_none(envelope: &Envelope, userid: u32, real: u32) -> Result<(), SignError> {
    if userid != real {
        return Err(SignError::NotReal { userid, real });
    }
    match envelope.signature.as_str() {
        "none" => Ok(()),
        _ => Err(SignError::Signature),
    }
}

/// When it ends, in seconds since 1970.
fn verify_munge(
    credential: &munge::Decoded,
    unsigned: &str,
    userid: u32,
    max_ttl: u64,
    now: u64,
) -> Result<u64, SignError> {
    if credential.data.first() != Some(&HASH_TYPE_SHA256) {
        return Err(SignError::HashType);
    }
    if credential.data != stamp(unsigned) {
        return Err(SignError::Digest);
    }
    if credential.uid != userid {
        return Err(SignError::UidMismatch);
    }
    let encoded_at = u64::from(credential.encoded_at);
    let ends = encoded_at.saturating_add(max_ttl);
    if ends < now {
        return Err(SignError::Expired(now - ends));
    }
    if encoded_at > now.saturating_add(SKEW) {
        return Err(SignError::Future(encoded_at - now));
    }
    Ok(ends)
}

/// What the credential carries.
fn stamp(unsigned: &str) -> Vec<u8> {
    let mut data = vec![HASH_TYPE_SHA256];
    data.extend_from_slice(&sha256::digest(unsigned.as_bytes()));
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn config(allowed: &[Mechanism]) -> Config {
        Config {
            max_ttl: 60,
            default: Mechanism::None,
            allowed: allowed.to_vec(),
            munge_socket: "/nonexistent/munge.socket.2".into(),
        }
    }

    #[test]
    fn an_envelope_of_a_real_flux_is_understood() {
        let text = "dmVyc2lvbgBpMQBtZWNoYW5pc20Ac25vbmUAdXNlcmlkAGkwAA==.e30=.none";
        let request = unwrap_none(text).unwrap();
        assert_eq!((request.userid, &request.payload[..]), (0, &b"{}"[..]));
        assert_eq!(wrap_none(0, b"{}"), text);
    }

    #[test]
    fn mechanism_none_is_believed_of_this_user_alone() {
        let config = config(&[Mechanism::None]);
        let text = wrap_none(1000, b"{}");
        assert_eq!(unwrap(&config, &text, 1000).unwrap().userid, 1000);
        let forged = unwrap(&config, &text, 1001);
        assert_eq!(forged, Err(SignError::NotReal { userid: 1000, real: 1001 }));
        let tampered = text.replace(".none", ".nope");
        assert_eq!(unwrap(&config, &tampered, 1000), Err(SignError::Signature));
    }

    #[test]
    fn a_mechanism_that_is_not_allowed_is_refused_before_its_signature_is_looked_at() {
        let text = wrap_none(1000, b"{}");
        let refused = unwrap(&config(&[Mechanism::Munge]), &text, 1000);
        assert_eq!(refused, Err(SignError::NotAllowed("none".to_owned())));
        let foreign = format!("{}.x", encode_unsigned("curve", 1000, b"{}"));
        let refused = unwrap(&config(&[Mechanism::Munge]), &foreign, 1000);
        assert_eq!(refused, Err(SignError::Unknown("curve".to_owned())));
        let foreign = format!("{}.x", encode_unsigned("munge", 0, b"{}"));
        assert_eq!(unwrap_none(&foreign), Err(SignError::NotAllowed("munge".to_owned())));
    }

    #[test]
    fn no_user_has_a_negative_id_or_the_one_that_changes_nothing() {
        for id in [-1, 4_294_967_295, 4_294_967_296] {
            let header = format!("version\0i1\0mechanism\0snone\0userid\0i{id}\0");
            let text = format!("{}.e30=.none", STANDARD.encode(header));
            assert_eq!(unwrap_none(&text), Err(SignError::Userid(id)));
        }
    }

    #[test]
    fn a_munge_credential_is_held_against_the_rest() {
        let unsigned = encode_unsigned("munge", 1000, b"{}");
        let made = |uid, encoded_at, data| munge::Decoded { uid, encoded_at, data };
        let good = made(1000, 5000, stamp(&unsigned));
        let at =
            |credential: &munge::Decoded, now| verify_munge(credential, &unsigned, 1000, 60, now);
        assert_eq!(at(&good, 5060), Ok(5060));
        assert_eq!(at(&good, 5061), Err(SignError::Expired(1)));
        assert_eq!(at(&good, 4000), Err(SignError::Future(1000)));
        assert_eq!(at(&made(1001, 5000, stamp(&unsigned)), 5000), Err(SignError::UidMismatch));
        assert_eq!(at(&made(1000, 5000, stamp("other")), 5000), Err(SignError::Digest));
        assert_eq!(at(&made(1000, 5000, vec![1]), 5000), Err(SignError::Digest));
        assert_eq!(at(&made(1000, 5000, vec![]), 5000), Err(SignError::HashType));
        assert_eq!(at(&made(1000, 5000, vec![2; 33]), 5000), Err(SignError::HashType));
    }

    #[test]
    fn without_a_daemon_nothing_is_signed_or_believed() {
        let config = config(&[Mechanism::Munge]);
        let error = wrap(&config, Mechanism::Munge, 1000, b"{}").unwrap_err().to_string();
        assert!(error.starts_with("sign-munge-sign: Failed to access \"/nonexistent/"), "{error}");
        let text = format!("{}.MUNGE:x:", encode_unsigned("munge", 1000, b"{}"));
        let error = unwrap(&config, &text, 1000).unwrap_err().to_string();
        assert!(error.starts_with("sign-munge-verify: munge_decode: Failed to access"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_wrapped_unwraps(userid in 0..u32::MAX, payload: Vec<u8>) {
            let request = unwrap_none(&wrap_none(userid, &payload)).unwrap();
            prop_assert_eq!(request.userid, userid);
            prop_assert_eq!(request.payload, payload);
        }
    }
}
