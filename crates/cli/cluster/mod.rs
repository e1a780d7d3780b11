//! The commands of a cluster: its two kinds of server, and what clients ask.

pub mod client;
pub mod coordinator;
mod publisher;
mod signals;
pub mod worker;

use clientele_proto::security::ClientSecurity;

use crate::args::CredentialArgs;
use crate::failure::Failure;

/// Where asynchronous things run; one a process.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                clientele_data::ErrorKind::Transient,
                "the system gives no threads",
            )
            .because(&error)
        })
}

/// The way to the coordinator at `url`.
fn credentials(url: &str, args: &CredentialArgs) -> Result<ClientSecurity, Failure> {
    let security = ClientSecurity::new(
        url,
        args.tls_ca.clone(),
        args.tls_cert.clone(),
        args.tls_key.clone(),
        args.token_file.clone(),
    )?;
    for warning in security.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(security)
}
