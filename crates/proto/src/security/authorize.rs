//! The layer around the server that finds who calls and asks the table.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};
use tower::{Layer, Service};
use x509_parser::extensions::GeneralName;

use super::roles::{Role, Roles, Rule, rule_for};
use super::tokens::TokenTable;

/// Refuses calls of whoever may not make them, before a service sees them.
#[derive(Clone)]
pub struct AuthorizeLayer {
    gate: Arc<Gate>,
}

impl AuthorizeLayer {
    pub(super) fn new(proof: Proof) -> Self {
        let gate = Gate {
            proof,
            n_unauthenticated: AtomicU64::new(0),
            n_denied: AtomicU64::new(0),
        };
        Self {
            gate: Arc::new(gate),
        }
    }

    /// What was refused since the coordinator started, over all clones of this layer.
    pub fn refusals(&self) -> Refusals {
        Refusals {
            n_unauthenticated: self.gate.n_unauthenticated.load(Ordering::Relaxed),
            n_denied: self.gate.n_denied.load(Ordering::Relaxed),
        }
    }
}

/// Calls that were refused. A connection that fails in the TLS handshake makes no call and is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// From callers who did not show who they are.
    pub n_unauthenticated: u64,
    /// From callers whose role may not call the method.
    pub n_denied: u64,
}

/// How callers show who they are.
pub(super) enum Proof {
    /// They need not: only this machine can connect.
    Nothing,
    /// By certificates, tokens, or either.
    Required {
        /// Whether connections are TLS and may come with a certificate.
        by_certificate: bool,
        /// The tokens there are.
        by_token: Option<TokenTable>,
    },
}

struct Gate {
    proof: Proof,
    n_unauthenticated: AtomicU64,
    n_denied: AtomicU64,
}

impl Gate {
    fn check(&self, path: &str, headers: &HeaderMap, from: &Extensions) -> Result<(), Status> {
        let refused = match self.rule(path, headers, from) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let count = match refused.code() {
            Code::Unauthenticated => &self.n_unauthenticated,
            _ => &self.n_denied,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Err(refused)
    }

    fn rule(&self, path: &str, headers: &HeaderMap, from: &Extensions) -> Result<(), Status> {
        let needed = match rule_for(path) {
            Some(Rule::Anyone) => return Ok(()),
            Some(Rule::Only(role)) => Some(role),
            None => None,
        };
        // Before a method without a rule is denied: a stranger does not learn which methods there are.
        let roles = self.roles(headers, from)?;
        match needed {
            Some(role) if roles.has(role) => Ok(()),
            Some(role) => Err(wrong_role(path, role, roles)),
            None => Err(Status::permission_denied(format!(
                "nobody may call `{path}`; if the coordinator should know this method, it may be of another version than the caller"
            ))),
        }
    }

    /// The roles of a caller who has shown who it is: those of its certificate and those of its token.
    fn roles(&self, headers: &HeaderMap, from: &Extensions) -> Result<Roles, Status> {
        let Proof::Required {
            by_certificate,
            by_token,
        } = &self.proof
        else {
            return Ok(Roles::EVERY);
        };
        let of_certificate = certificate_roles(from);
        let of_token = match (by_token, bearer_token(headers)) {
            (Some(table), Some(token)) => Some(table.roles(token).ok_or_else(unknown_token)?),
            _ => None,
        };
        match (of_certificate, of_token) {
            (None, None) => Err(no_proof(*by_certificate, by_token.is_some())),
            (certificate, token) => Ok(certificate
                .unwrap_or_default()
                .and(token.unwrap_or_default())),
        }
    }
}

/// What the certificate of the caller says; none if it has shown none. TLS has verified it against the authority by now.
fn certificate_roles(from: &Extensions) -> Option<Roles> {
    let certificates = from.get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificates.first()?).ok()?;
    let mut roles = Roles::default();
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            let GeneralName::URI(uri) = name else {
                continue;
            };
            for role in Role::ALL {
                if *uri == role.uri() {
                    roles.add(role);
                }
            }
        }
    }
    Some(roles)
}

/// The token in `authorization: Bearer TOKEN`.
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

fn no_proof(by_certificate: bool, by_token: bool) -> Status {
    let (lacks, give) = match (by_certificate, by_token) {
        (true, true) => (
            "neither a client certificate nor a token",
            "give `--tls-cert` and `--tls-key`, or `--token-file`",
        ),
        (true, false) => ("no client certificate", "give `--tls-cert` and `--tls-key`"),
        _ => ("no token", "give `--token-file`"),
    };
    Status::unauthenticated(format!("the call came with {lacks}; {give}"))
}

fn unknown_token() -> Status {
    Status::unauthenticated(
        "the token is not one of this coordinator's; give a `--token-file` with a token from the coordinator's own",
    )
}

fn wrong_role(path: &str, needed: Role, roles: Roles) -> Status {
    Status::permission_denied(format!(
        "`{path}` is for the role {needed}, and the caller's role is {roles}; \
         use a certificate with the URI `{}`, or a token of that role",
        needed.uri()
    ))
}

/// A service behind an [`AuthorizeLayer`].
#[derive(Clone)]
pub struct AuthorizeService<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = AuthorizeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthorizeService {
            inner,
            gate: Arc::clone(&self.gate),
        }
    }
}

impl<S, Asked, Answered> Service<http::Request<Asked>> for AuthorizeService<S>
where
    S: Service<http::Request<Asked>, Response = http::Response<Answered>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    Answered: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Asked>) -> Self::Future {
        let path = request.uri().path();
        match self
            .gate
            .check(path, request.headers(), request.extensions())
        {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(refused) => Box::pin(std::future::ready(Ok(refused.into_http()))),
        }
    }
}
