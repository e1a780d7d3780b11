//! The security of a coordinator, from its flags.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Server;
use tonic::transport::server::ServerTlsConfig;
use tower::layer::util::{Identity, Stack};

use super::authorize::{AuthorizeLayer, Proof};
use super::error::SecurityError;
use super::pem::{read_authority, read_pair, readable_by_others};
use super::tokens::{TokenTable, read_tokens};
use crate::connection;

/// A client that takes longer to agree on TLS is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may connect to a coordinator, and what they may call.
pub struct ServerSecurity {
    /// Checked, and complete with TLS.
    server: Server,
    layer: AuthorizeLayer,
    is_encrypted: bool,
    warnings: Vec<String>,
}

impl ServerSecurity {
    /// Reads and checks everything, so that a coordinator that starts is a coordinator that can be talked to.
    pub fn new(
        listen: SocketAddr,
        tls_cert: Option<PathBuf>,
        tls_key: Option<PathBuf>,
        tls_ca: Option<PathBuf>,
        token_file: Option<PathBuf>,
    ) -> Result<Self, SecurityError> {
        let is_local = listen.ip().to_canonical().is_loopback();
        let tls = all_or_none(tls_cert, tls_key, tls_ca)?;
        if tls.is_none() && token_file.is_none() && !is_local {
            return Err(SecurityError::Open { listen });
        }
        let mut warnings = Vec::new();
        let tokens = match &token_file {
            Some(path) => {
                warnings.extend(readable_by_others(path, "token file"));
                Some(TokenTable::new(&read_tokens(path)?))
            }
            None => None,
        };
        let is_encrypted = tls.is_some();
        if !is_encrypted && !is_local {
            warnings.push(format!(
                "tokens and data cross the network in clear: {listen} has no TLS; `--tls-cert`, `--tls-key` and `--tls-ca` encrypt them"
            ));
        }
        let server = match tls {
            Some([cert, key, ca]) => {
                warnings.extend(readable_by_others(&key, "private key"));
                with_tls(&cert, &key, &ca, tokens.is_some())?
            }
            None => connection::server(),
        };
        let proof = match (is_encrypted, tokens) {
            (false, None) => Proof::Nothing,
            (by_certificate, by_token) => Proof::Required {
                by_certificate,
                by_token,
            },
        };
        Ok(Self {
            server,
            layer: AuthorizeLayer::new(proof),
            is_encrypted,
            warnings,
        })
    }

    /// A server with TLS, the manners of [`connection::server`] and the gate: what is added to it is guarded.
    pub fn server(&self) -> Server<Stack<AuthorizeLayer, Identity>> {
        self.server.clone().layer(self.layer.clone())
    }

    /// The gate, for what it has refused.
    pub fn layer(&self) -> &AuthorizeLayer {
        &self.layer
    }

    /// Whether callers write `https://`.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// What works and should be better, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Says nothing of keys and tokens.
impl fmt::Debug for ServerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSecurity")
            .field("is_encrypted", &self.is_encrypted)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Certificate, key and authority.
fn all_or_none(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
) -> Result<Option<[PathBuf; 3]>, SecurityError> {
    const FLAGS: [&str; 3] = ["--tls-cert", "--tls-key", "--tls-ca"];
    let given = [cert.is_some(), key.is_some(), ca.is_some()];
    match (cert, key, ca) {
        (Some(cert), Some(key), Some(ca)) => Ok(Some([cert, key, ca])),
        (None, None, None) => Ok(None),
        _ => {
            let first = |is_given: bool| {
                let position = given.iter().position(|given| *given == is_given);
                FLAGS[position.unwrap_or_default()]
            };
            Err(SecurityError::Incomplete {
                given: first(true),
                missing: first(false),
                all: &FLAGS,
            })
        }
    }
}

fn with_tls(cert: &Path, key: &Path, ca: &Path, has_tokens: bool) -> Result<Server, SecurityError> {
    let pair = read_pair(cert, key)?;
    let authority = read_authority(ca)?;
    let tls = ServerTlsConfig::new()
        .identity(pair.identity)
        .timeout(HANDSHAKE_TIMEOUT);
    // First without the authority, to know which of the files does not fit.
    Server::builder()
        .tls_config(tls.clone())
        .map_err(|source| SecurityError::BadPair {
            cert: pair.cert,
            key: pair.key,
            source,
        })?;
    connection::server()
        .tls_config(
            tls.client_ca_root(authority)
                .client_auth_optional(has_tokens),
        )
        .map_err(|source| SecurityError::BadAuthority {
            ca: ca.to_owned(),
            source,
        })
}
