//! Who signed a submission.
//!
//! The owner's own requests need no proof. All others are verified as the IMP will verify them
//! again at the job's start, so that a user learns now what would fail then. Verifying asks
//! another daemon: it is done on a thread, for one request after the other, in their order.

use std::rc::Rc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_sign::{Config, SignError};
use tokio::sync::Semaphore;

use super::request::{Checked, invalid};

/// A queue before the daemon.
#[derive(Debug)]
pub(super) struct Verifier {
    turn: Rc<Semaphore>,
}

impl Default for Verifier {
    fn default() -> Verifier {
        Verifier { turn: Rc::new(Semaphore::new(1)) }
    }
}

/// The signer, where no proof is needed, of requests of mechanism `none`: the owner's are
/// believed, and what is not the sender's own is refused.
pub(super) fn without_proof(
    j: &str,
    checked: &Checked,
) -> Option<Result<flux_sign::Request, Failure>> {
    if !checked.cred().is_owner() {
        let unsigned = flux_sign::decode(j).ok().filter(|e| e.header.mechanism == "none");
        // Nothing needs to be verified to see that it is somebody else's.
        return unsigned.and_then(|e| checked.check_signer(e.header.userid).err()).map(Err);
    }
    match flux_sign::unwrap_none(j) {
        Ok(signed) => Some(Ok(signed)),
        // Signed with another mechanism, perhaps by another user.
        Err(SignError::NotAllowed(_)) => None,
        Err(error) => Some(Err(invalid(error.to_string()))),
    }
}

impl Verifier {
    /// The request, with its signer; `owner` is this process's user.
    pub(super) fn verify(
        &self,
        j: String,
        owner: u32,
    ) -> impl Future<Output = Result<(String, flux_sign::Request), Failure>> + use<> {
        let turn = self.turn.clone();
        async move {
            let _turn = turn.acquire().await;
            let verified = tokio::task::spawn_blocking(move || {
                let signed = verify(&j, owner)?;
                Ok((j, signed))
            });
            match verified.await {
                Ok(result) => result,
                Err(error) => Err(Failure::new(Errno::EIO, error.to_string())),
            }
        }
    }
}

fn verify(j: &str, owner: u32) -> Result<flux_sign::Request, Failure> {
    // Read anew for each request, as the IMP does: what the administrator changes counts at once.
    let config = match Config::load(0) {
        Ok(config) => config,
        Err(error) => return Err(unconfigured(j, &error)),
    };
    flux_sign::unwrap(&config, j, owner).map_err(|error| invalid(error.to_string()))
}

/// Without configuration there is no signature to believe.
fn unconfigured(j: &str, error: &SignError) -> Failure {
    match flux_sign::decode(j) {
        Ok(envelope) if envelope.header.mechanism == "none" => {
            Failure::new(Errno::EPERM, "only instance owner can use sign-type=none")
        }
        Ok(_) => invalid(error.to_string()),
        Err(malformed) => invalid(malformed.to_string()),
    }
}
