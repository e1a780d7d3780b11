//! The security of whoever dials a coordinator, from its flags.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::{HeaderValue, Uri};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::error::SecurityError;
use super::pem::{read_authority, read_pair, readable_by_others};
use super::tokens::read_tokens;
use crate::connection;

/// Set to 1, tokens are sent without TLS to other machines: for networks that encrypt by themselves.
pub const PLAINTEXT_TOKENS: &str = "CLIENTELE_PLAINTEXT_TOKENS";

/// How a coordinator is dialled, and who calls.
#[derive(Clone)]
pub struct ClientSecurity {
    endpoint: Endpoint,
    token: TokenInterceptor,
    warnings: Vec<String>,
}

impl ClientSecurity {
    /// Reads and checks everything; nothing is sent yet. Of `token_file` the first token counts.
    pub fn new(
        url: &str,
        tls_ca: Option<PathBuf>,
        tls_cert: Option<PathBuf>,
        tls_key: Option<PathBuf>,
        token_file: Option<PathBuf>,
    ) -> Result<Self, SecurityError> {
        let plaintext_tokens = std::env::var_os(PLAINTEXT_TOKENS).is_some_and(|value| value == "1");
        let files = Files {
            tls_ca,
            tls_cert,
            tls_key,
            token_file,
        };
        Self::with_files(url, &files, plaintext_tokens)
    }

    pub(super) fn with_files(
        url: &str,
        files: &Files,
        plaintext_tokens: bool,
    ) -> Result<Self, SecurityError> {
        let address = Address::parse(url)?;
        let mut warnings = Vec::new();
        let endpoint = connection::endpoint(address.uri.clone());
        let endpoint = if address.is_encrypted {
            warnings.extend(
                (files.tls_key.iter()).filter_map(|key| readable_by_others(key, "private key")),
            );
            with_tls(endpoint, &address, files)?
        } else {
            refuse_tls_files(&address, files)?;
            endpoint
        };
        let token = match &files.token_file {
            Some(path) => {
                if !address.is_encrypted && !address.is_local && !plaintext_tokens {
                    return Err(SecurityError::TokenInClear {
                        token_file: path.clone(),
                        url: address.to_string(),
                    });
                }
                warnings.extend(readable_by_others(path, "token file"));
                Some(read_header(path)?)
            }
            None => None,
        };
        Ok(Self {
            endpoint,
            token: TokenInterceptor { token },
            warnings,
        })
    }

    /// Where and how to dial, with manners: see [`connection`].
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Adds the token, if there is one, to every call: `JobsServiceClient::with_interceptor(channel, security.interceptor())`.
    pub fn interceptor(&self) -> TokenInterceptor {
        self.token.clone()
    }

    /// What works and should be better, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Says nothing of keys and tokens.
impl fmt::Debug for ClientSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecurity")
            .field("uri", self.endpoint.uri())
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Adds a token to calls.
#[derive(Debug, Clone)]
pub struct TokenInterceptor {
    /// Marked as sensitive: neither `Debug` nor a compressed header shows it.
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// The flags that name files.
#[derive(Default)]
pub(super) struct Files {
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
}

/// Scheme, host and port of a coordinator, and nothing else.
struct Address {
    uri: Uri,
    is_encrypted: bool,
    /// Whether the host is this machine.
    is_local: bool,
}

impl Address {
    fn parse(url: &str) -> Result<Self, SecurityError> {
        let bad = |reason: &str| SecurityError::BadUrl {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        // Not shown: what is before the `@` may be a password.
        if let Some((_, host)) = url.split_once('@') {
            return Err(SecurityError::BadUrl {
                url: format!("...@{host}"),
                reason: "it holds a user name; a token comes with `--token-file`".into(),
            });
        }
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        let is_encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(bad("it begins with neither https:// nor http://")),
            None => return Err(bad("it does not begin with https:// or http://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| bad("it has no host"))?.to_owned();
        if uri.port_u16().is_none() {
            return Err(bad("it has no port"));
        }
        // gRPC has its own paths: this one would be left out without a word.
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err(bad("it has a path"));
        }
        Ok(Self {
            uri,
            is_encrypted,
            is_local: is_this_machine(&host),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.uri.to_string();
        f.write_str(text.trim_end_matches('/'))
    }
}

/// Only what is so by definition: other names are asked of a DNS server that may lie.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn with_tls(
    endpoint: Endpoint,
    address: &Address,
    files: &Files,
) -> Result<Endpoint, SecurityError> {
    let Some(ca) = &files.tls_ca else {
        return Err(SecurityError::NoAuthority {
            url: address.to_string(),
        });
    };
    // The timeout of the endpoint ends with the TCP connection.
    let tls = ClientTlsConfig::new()
        .ca_certificate(read_authority(ca)?)
        .timeout(connection::CONNECT_TIMEOUT);
    let (cert, key) = match (&files.tls_cert, &files.tls_key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => {
            return endpoint
                .tls_config(tls)
                .map_err(|source| SecurityError::BadAuthority {
                    ca: ca.clone(),
                    source,
                });
        }
        (cert, _) => {
            const FLAGS: [&str; 2] = ["--tls-cert", "--tls-key"];
            let [given, missing] = match cert {
                Some(_) => FLAGS,
                None => [FLAGS[1], FLAGS[0]],
            };
            return Err(SecurityError::Incomplete {
                given,
                missing,
                all: &FLAGS,
            });
        }
    };
    let pair = read_pair(cert, key)?;
    endpoint
        .tls_config(tls.identity(pair.identity))
        .map_err(|source| SecurityError::BadPair {
            cert: pair.cert,
            key: pair.key,
            source,
        })
}

/// Whoever gives certificates believes that they are used.
fn refuse_tls_files(address: &Address, files: &Files) -> Result<(), SecurityError> {
    let given = [
        ("--tls-ca", &files.tls_ca),
        ("--tls-cert", &files.tls_cert),
        ("--tls-key", &files.tls_key),
    ];
    match given.iter().find(|(_, path)| path.is_some()) {
        Some((flag, _)) => Err(SecurityError::NotEncrypted {
            flag,
            url: address.to_string(),
        }),
        None => Ok(()),
    }
}

/// The first token of a file, as a header.
fn read_header(path: &Path) -> Result<MetadataValue<Ascii>, SecurityError> {
    let none = || SecurityError::NoTokens {
        path: path.to_owned(),
    };
    let tokens = read_tokens(path)?;
    let token = tokens.first().ok_or_else(none)?;
    let value = HeaderValue::try_from(format!("Bearer {}", token.secret)).map_err(|_| none())?;
    let mut value = MetadataValue::try_from(value.as_bytes()).map_err(|_| none())?;
    value.set_sensitive(true);
    Ok(value)
}
