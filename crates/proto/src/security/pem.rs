//! Certificates and keys from PEM files, with complaints that name the flag and the file.

use std::fs;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, Identity};
use x509_parser::pem::Pem;

use super::error::SecurityError;

/// A certificate with its key, and where they come from.
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) identity: Identity,
}

pub(super) fn read_pair(cert: &Path, key: &Path) -> Result<Pair, SecurityError> {
    let cert_pem = read_certificates("--tls-cert", cert)?;
    let key_pem = read_key("--tls-key", key)?;
    Ok(Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        identity: Identity::from_pem(cert_pem, key_pem),
    })
}

pub(super) fn read_authority(path: &Path) -> Result<Certificate, SecurityError> {
    read_certificates("--tls-ca", path).map(Certificate::from_pem)
}

pub(super) fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    fs::read(path).map_err(|source| SecurityError::Unreadable {
        flag,
        path: path.to_owned(),
        source,
    })
}

/// A warning, if others than the owner can read a file with a secret in it.
pub(super) fn readable_by_others(path: &Path, what: &str) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o004 != 0).then(|| {
            format!(
                "{what} `{path}` can be read by other users of this machine (mode {mode:04o}); `chmod 600 {path}` ends that",
                path = path.display()
            )
        })
    }
    #[cfg(not(unix))]
    {
        let _ = (path, what);
        None
    }
}

/// TLS would skip a certificate that it cannot read, without a word; so each is parsed here.
fn read_certificates(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let pem = read(flag, path)?;
    let not_pem = |found: String| SecurityError::NotPem {
        flag,
        path: path.to_owned(),
        expected: "a certificate",
        found,
    };
    let blocks = blocks(&pem).map_err(not_pem)?;
    let certificates: Vec<&Pem> = blocks
        .iter()
        .filter(|block| block.label == "CERTIFICATE")
        .collect();
    if certificates.is_empty() {
        return Err(not_pem(format!("it holds a {}", blocks[0].label)));
    }
    if certificates.iter().any(|cert| cert.parse_x509().is_err()) {
        return Err(not_pem("it is damaged".into()));
    }
    Ok(pem)
}

fn read_key(flag: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let pem = read(flag, path)?;
    let not_pem = |found: String| SecurityError::NotPem {
        flag,
        path: path.to_owned(),
        expected: "a private key",
        found,
    };
    let labels: Vec<String> = blocks(&pem)
        .map_err(not_pem)?
        .into_iter()
        .map(|block| block.label)
        .collect();
    if labels.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") {
        return Err(not_pem(
            "it holds one that is locked with a password".into(),
        ));
    }
    // `openssl ecparam` writes the parameters of the curve before the key.
    if !labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        return Err(not_pem(format!("it holds a {}", labels.join(" and a "))));
    }
    Ok(pem)
}

/// At least one block, or what is there instead.
fn blocks(pem: &[u8]) -> Result<Vec<Pem>, String> {
    let blocks = Pem::iter_from_buffer(pem)
        .collect::<Result<Vec<Pem>, _>>()
        .map_err(|_| "it is damaged".to_owned())?;
    match blocks.is_empty() {
        true if pem.is_empty() => Err("it is empty".into()),
        true => Err("it is not PEM".into()),
        false => Ok(blocks),
    }
}
