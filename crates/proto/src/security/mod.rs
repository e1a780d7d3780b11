//! Who may talk to a coordinator, and how a caller shows who it is.
//!
//! Three ways, decided once when the coordinator starts ([`ServerSecurity`]):
//! - mutual TLS: the caller's certificate names its role, `clientele:worker` or `clientele:client`, as a URI;
//! - a bearer token, from a file that says which token has which role;
//! - neither: then the coordinator listens on loopback only, and every caller has every role.
//!
//! What a role may call is one table, [`RULES`]; what is not in it is denied.

mod authorize;
mod client;
mod development_ca;
mod error;
mod pem;
mod roles;
mod server;
#[cfg(test)]
mod tests;
mod tokens;

pub use authorize::{AuthorizeLayer, AuthorizeService, Refusals};
pub use client::{ClientSecurity, PLAINTEXT_TOKENS, TokenInterceptor};
pub use development_ca::{CertificateError, CertificateFiles, init_certificates};
pub use error::SecurityError;
pub use roles::{RULES, Role, Rule, rule_for};
pub use server::ServerSecurity;
