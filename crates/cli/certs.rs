//! `clientele certs`: certificates for a cluster of one's own.

use clientele_proto::security::{CertificateFiles, init_certificates};

use crate::args::{CertsArgs, CertsCommand, CertsInitArgs};
use crate::failure::Failure;

/// `clientele certs`.
pub fn run(args: &CertsArgs) -> Result<(), Failure> {
    match &args.command {
        CertsCommand::Init(args) => init(args),
    }
}

/// `clientele certs init`.
fn init(args: &CertsInitArgs) -> Result<(), Failure> {
    let files = init_certificates(&args.out, &args.hosts)?;
    // A pattern of a certificate is no host to dial.
    let named = args.hosts.iter().find(|host| !host.starts_with('*'));
    let host = named.map_or("localhost", String::as_str);
    print!("{}", next_steps(&files, host));
    Ok(())
}

/// What was made, and the three commands that use it.
fn next_steps(files: &CertificateFiles, host: &str) -> String {
    let CertificateFiles {
        ca,
        ca_key,
        server,
        server_key,
        worker,
        worker_key,
        client,
        client_key,
    } = files;
    let (ca, ca_key) = (ca.display(), ca_key.display());
    let (server, server_key) = (server.display(), server_key.display());
    let (worker, worker_key) = (worker.display(), worker_key.display());
    let (client, client_key) = (client.display(), client_key.display());
    let (listen, url) = match host {
        "localhost" => ("127.0.0.1:7070", "https://localhost:7070".to_owned()),
        v6 if v6.contains(':') => ("[::]:7070", format!("https://[{v6}]:7070")),
        host => ("0.0.0.0:7070", format!("https://{host}:7070")),
    };
    format!(
        "Certificates for a coordinator, its workers and its clients, valid for a year.

The coordinator:
  clientele coordinator --listen {listen} --tls-cert {server} --tls-key {server_key} --tls-ca {ca}

Each worker, with copies of these three files:
  clientele worker --coordinator {url} --tls-ca {ca} --tls-cert {worker} --tls-key {worker_key}

Whoever submits jobs:
  clientele status --coordinator {url} --tls-ca {ca} --tls-cert {client} --tls-key {client_key}

Nothing that runs needs {ca_key}: whoever has it can let anybody in, so keep it elsewhere.
"
    )
}
