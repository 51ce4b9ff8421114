//! Signing a job request as the user that runs the command.

use flux_client::Client;

/// The owner of the instance needs no proof; anybody else signs as the site has configured it.
pub(crate) async fn sign(flux: &Client, jobspec: &[u8]) -> Result<String, String> {
    let userid = nix::unistd::getuid().as_raw();
    let owner = flux.attr("security.owner").await.map_err(|error| error.to_string())?;
    let owner = owner.parse().map_err(|_| format!("security.owner: {owner}"))?;
    flux_sign::sign_as_submitter(owner, userid, jobspec).map_err(|error| error.to_string())
}
