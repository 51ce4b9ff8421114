//! Signing a job request as the user that runs the command.

use std::sync::OnceLock;

use flux_client::Client;

/// Sign with a mechanism that the user names, configured as the site has it.
pub(crate) fn sign_with(mechanism: &str, jobspec: &[u8]) -> Result<String, String> {
    let userid = nix::unistd::getuid().as_raw();
    flux_sign::sign_with(mechanism, userid, jobspec).map_err(|error| error.to_string())
}

/// The owner of the instance needs no proof; anybody else signs as the site has configured it.
pub(crate) async fn sign(flux: &Client, jobspec: &[u8]) -> Result<String, String> {
    let userid = nix::unistd::getuid().as_raw();
    flux_sign::sign_as_submitter(owner(flux).await?, userid, jobspec)
        .map_err(|error| error.to_string())
}

/// Asked for once: a command submits to one instance.
async fn owner(flux: &Client) -> Result<u32, String> {
    static OWNER: OnceLock<u32> = OnceLock::new();
    if let Some(owner) = OWNER.get() {
        return Ok(*owner);
    }
    let text = flux.attr("security.owner").await.map_err(|error| error.to_string())?;
    let owner = text.parse().map_err(|_| format!("security.owner: {text}"))?;
    Ok(*OWNER.get_or_init(|| owner))
}
