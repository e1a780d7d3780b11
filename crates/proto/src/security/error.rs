//! What can be wrong with certificates, tokens and addresses before anything is sent.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clientele_data::ErrorKind;

use super::client::PLAINTEXT_TOKENS;

/// Why a coordinator does not start, or is not dialled. No message holds a token or a key.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A coordinator that anybody on the network could use.
    #[error(
        "listening on {listen} without TLS and without tokens would let everybody on the network in"
    )]
    Open {
        /// The address.
        listen: SocketAddr,
    },
    /// Some of the flags of TLS, but not all.
    #[error("{given} is given without {missing}")]
    Incomplete {
        /// A flag that is given.
        given: &'static str,
        /// The first one that is not.
        missing: &'static str,
        /// All that belong together.
        all: &'static [&'static str],
    },
    /// A file that cannot be read.
    #[error("cannot read `{}`, given with {flag}", path.display())]
    Unreadable {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that does not hold what its flag asks for.
    #[error("`{}`, given with {flag}, does not hold {expected}: {found}", path.display())]
    NotPem {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// `a certificate` or `a private key`.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// A certificate and a key that are not a pair, or of a kind that TLS cannot use.
    #[error("certificate `{}` and key `{}` cannot be used together", cert.display(), key.display())]
    BadPair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What TLS says.
        source: tonic::transport::Error,
    },
    /// A certificate authority that TLS cannot use.
    #[error("TLS cannot be set up with `{}`", ca.display())]
    BadAuthority {
        /// The certificate of the authority.
        ca: PathBuf,
        /// What TLS says.
        source: tonic::transport::Error,
    },
    /// A line of a token file. The line itself is not shown: it may hold a token.
    #[error("line {line} of token file `{}` {reason}", path.display())]
    BadToken {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A token file without a token.
    #[error("token file `{}` holds no token", path.display())]
    NoTokens {
        /// The file.
        path: PathBuf,
    },
    /// An address of a coordinator that is none.
    #[error("`{url}` is not the address of a coordinator: {reason}")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `https://` without the authority to check the certificate of the coordinator against.
    #[error("{url} needs `--tls-ca`: without it, nothing says which coordinator is the right one")]
    NoAuthority {
        /// The address.
        url: String,
    },
    /// TLS files, and an address without TLS.
    #[error("{flag} is given, but {url} is not encrypted")]
    NotEncrypted {
        /// The first flag of TLS that is given.
        flag: &'static str,
        /// The address.
        url: String,
    },
    /// A token that everybody on the way could read.
    #[error("the token of `{}` would cross the network in clear to {url}", token_file.display())]
    TokenInClear {
        /// Where the token is.
        token_file: PathBuf,
        /// The address.
        url: String,
    },
}

impl SecurityError {
    /// What the error means for whoever started the command.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    /// A way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Open { .. } => "add these three, which `clientele certs init` makes, or `--token-file FILE`, or listen on 127.0.0.1\n    \
                 --tls-cert server.pem\n    --tls-key server-key.pem\n    --tls-ca ca.pem"
                .to_owned(),
            Self::Incomplete { all, .. } => format!("give {} or none of them", all.join(", ")),
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run the command as the user who owns the file".to_owned()
            }
            Self::Unreadable { flag, .. } if *flag == "--token-file" => {
                "give a text file with a line `client TOKEN` or `worker TOKEN` for each token".to_owned()
            }
            Self::Unreadable { .. } | Self::NotPem { .. } | Self::BadAuthority { .. } => {
                "`clientele certs init` makes certificates and keys for a start".to_owned()
            }
            Self::BadPair { .. } => {
                "give the key that the certificate was made for; `clientele certs init` names the two alike, as worker.pem and worker-key.pem"
                    .to_owned()
            }
            Self::BadToken { .. } | Self::NoTokens { .. } => {
                "write a line `client TOKEN` or `worker TOKEN` for each token; `openssl rand -hex 32` makes one".to_owned()
            }
            Self::BadUrl { .. } => {
                "write https://HOST:PORT, or http://HOST:PORT for a coordinator without TLS".to_owned()
            }
            Self::NoAuthority { .. } => {
                "add `--tls-ca ca.pem`: the authority that signed the certificate of the coordinator".to_owned()
            }
            Self::NotEncrypted { .. } => {
                "write https:// for a coordinator with TLS, or leave the flags of TLS out".to_owned()
            }
            Self::TokenInClear { .. } => format!(
                "use https:// and `--tls-ca`; set {PLAINTEXT_TOKENS}=1 if something else encrypts this connection"
            ),
        };
        Some(hint)
    }
}
