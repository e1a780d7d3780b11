//! Certificates to start with: an authority of one's own, and one certificate for each kind of process.
//!
//! For development and small clusters. Whoever has an authority keeps it, and puts the URIs of [`Role::uri`] into the certificates.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clientele_data::ErrorKind;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use super::roles::Role;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3_652 * DAY.as_secs());
pub(super) const LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());

/// Clocks of a cluster differ; a certificate that is not valid yet is a riddle.
const CLOCK_SLACK: Duration = Duration::from_secs(60 * 60);

/// Hosts that a coordinator is always reached by from its own machine.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The files of [`init_certificates`], each certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The authority; everybody needs it, for `--tls-ca`.
    pub ca: PathBuf,
    /// Its key, which nobody needs to run: keep it offline.
    pub ca_key: PathBuf,
    /// Of the coordinator.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// Of all workers.
    pub worker: PathBuf,
    /// Its key.
    pub worker_key: PathBuf,
    /// Of people and schedulers.
    pub client: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl CertificateFiles {
    fn inside(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            ca: file("ca.pem"),
            ca_key: file("ca-key.pem"),
            server: file("server.pem"),
            server_key: file("server-key.pem"),
            worker: file("worker.pem"),
            worker_key: file("worker-key.pem"),
            client: file("client.pem"),
            client_key: file("client-key.pem"),
        }
    }

    fn all(&self) -> [&PathBuf; 8] {
        [
            &self.ca,
            &self.ca_key,
            &self.server,
            &self.server_key,
            &self.worker,
            &self.worker_key,
            &self.client,
            &self.client_key,
        ]
    }
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that is there already. None is written then.
    #[error("`{}` exists, and certificates are never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A host that no certificate can name.
    #[error("`{host}` is neither a host name nor an IP address")]
    BadHost {
        /// As given.
        host: String,
    },
    /// Writing failed.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The certificates could not be made.
    #[error("cannot make a certificate")]
    Make {
        /// Why not.
        #[from]
        source: rcgen::Error,
    },
}

impl CertificateError {
    /// What the error means for whoever started the command.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } => ErrorKind::Conflict,
            Self::BadHost { .. } | Self::Write { .. } => ErrorKind::Usage,
            Self::Make { .. } => ErrorKind::Bug,
        }
    }

    /// A way out, where one is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Exists { .. } => "choose another folder with `--out`, or delete the files first",
            Self::BadHost { .. } => {
                "give the name or address that workers and clients dial, without https:// and port"
            }
            Self::Write { .. } => "choose a folder you may write to with `--out`",
            Self::Make { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Makes an authority in `folder`, and certificates of it for a coordinator on `hosts`, for workers and for clients.
pub fn init_certificates(
    folder: &Path,
    hosts: &[String],
) -> Result<CertificateFiles, CertificateError> {
    let hosts = alternative_names(hosts)?;
    let files = CertificateFiles::inside(folder);
    refuse_existing(&files)?;
    let now = SystemTime::now();

    let authority = make_authority(now)?;
    let server = Leaf::new("clientele coordinator")
        .hosts(hosts)
        .uri("clientele:coordinator")?
        .make(&authority, now, ExtendedKeyUsagePurpose::ServerAuth)?;
    let of_role = |role: Role| {
        Leaf::new(&format!("clientele {role}"))
            .uri(role.uri())?
            .make(&authority, now, ExtendedKeyUsagePurpose::ClientAuth)
    };
    let worker = of_role(Role::Worker)?;
    let client = of_role(Role::Client)?;

    create_folder(folder)?;
    let authority = (authority.pem(), authority.key().serialize_pem());
    for (cert, key, (cert_pem, key_pem)) in [
        (&files.ca, &files.ca_key, authority),
        (&files.server, &files.server_key, server),
        (&files.worker, &files.worker_key, worker),
        (&files.client, &files.client_key, client),
    ] {
        write_new(key, &key_pem, 0o600)?;
        write_new(cert, &cert_pem, 0o644)?;
    }
    Ok(files)
}

/// Those of this machine, and then `hosts`, each once.
pub(super) fn alternative_names(hosts: &[String]) -> Result<Vec<SanType>, CertificateError> {
    let mut names = Vec::new();
    for host in LOCAL_HOSTS
        .into_iter()
        .chain(hosts.iter().map(String::as_str))
    {
        let bad = || CertificateError::BadHost {
            host: host.to_owned(),
        };
        let name = match host.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if is_host_name(host) => SanType::DnsName(host.try_into().map_err(|_| bad())?),
            Err(_) => return Err(bad()),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Letters, digits, hyphens and underscores between dots; `*` for the first part.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && (label.bytes()).all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= 253
        && host
            .strip_prefix("*.")
            .unwrap_or(host)
            .split('.')
            .all(is_label)
}

/// Before anything is made: a folder is never left with half of two authorities.
fn refuse_existing(files: &CertificateFiles) -> Result<(), CertificateError> {
    // `symlink_metadata`: a link that leads nowhere is in the way too.
    match (files.all().into_iter()).find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CertificateError::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(super) fn make_authority(now: SystemTime) -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // Two authorities of one name would be mixed up: TLS would say "bad signature" where it means "another authority".
    let id = blake3::hash(key.public_key_raw()).to_hex();
    params.distinguished_name = subject(&format!("clientele development CA {}", &id[..8]));
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + AUTHORITY_LIFETIME).into();
    // It signs leaves only, never another authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, key)
}

/// A certificate that signs nothing.
pub(super) struct Leaf(CertificateParams);

impl Leaf {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Self(params)
    }

    pub(super) fn hosts(mut self, names: Vec<SanType>) -> Self {
        self.0.subject_alt_names.extend(names);
        self
    }

    pub(super) fn uri(mut self, uri: &str) -> Result<Self, rcgen::Error> {
        self.0.subject_alt_names.push(SanType::URI(uri.try_into()?));
        Ok(self)
    }

    /// Certificate and key, as PEM. The one purpose keeps a worker from posing as the coordinator.
    pub(super) fn make(
        mut self,
        authority: &Authority,
        now: SystemTime,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<(String, String), rcgen::Error> {
        self.0.extended_key_usages = vec![purpose];
        self.0.not_before = (now - CLOCK_SLACK).into();
        self.0.not_after = (now + LIFETIME).into();
        let key = KeyPair::generate()?;
        let cert = self.0.signed_by(&key, authority)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn subject(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

fn create_folder(folder: &Path) -> Result<(), CertificateError> {
    fs::create_dir_all(folder).map_err(|source| CertificateError::Write {
        path: folder.to_owned(),
        source,
    })
}

/// `mode` holds from the first byte on: a key is never readable by others, not even for a moment.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => CertificateError::Exists {
                path: path.to_owned(),
            },
            _ => CertificateError::Write {
                path: path.to_owned(),
                source,
            },
        })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::GeneralName;
    use x509_parser::pem::parse_x509_pem;

    use super::*;

    fn made(hosts: &[&str]) -> (tempfile::TempDir, CertificateFiles) {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let files = init_certificates(&folder.path().join("certs"), &hosts).expect("made");
        (folder, files)
    }

    fn with_certificate<T>(path: &Path, look: impl Fn(&X509Certificate<'_>) -> T) -> T {
        let bytes = fs::read(path).expect("read");
        let (_, pem) = parse_x509_pem(&bytes).expect("PEM");
        look(&pem.parse_x509().expect("a certificate"))
    }

    fn alternative_names_of(path: &Path) -> Vec<String> {
        with_certificate(path, |certificate| {
            let names = certificate.subject_alternative_name().expect("readable");
            let names = names.expect("there").value.general_names.clone();
            let name = |name: &GeneralName<'_>| match name {
                GeneralName::DNSName(name) => format!("DNS {name}"),
                GeneralName::URI(uri) => format!("URI {uri}"),
                GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                    Ok(v4) => format!("IP {}", IpAddr::from(v4)),
                    Err(_) => {
                        format!(
                            "IP {}",
                            IpAddr::from(<[u8; 16]>::try_from(*bytes).expect("v6"))
                        )
                    }
                },
                other => format!("{other:?}"),
            };
            names.iter().map(name).collect()
        })
    }

    #[test]
    fn certificates_name_hosts_and_roles() {
        let (_folder, files) = made(&["coordinator.internal", "10.0.0.7", "localhost"]);
        assert_eq!(
            alternative_names_of(&files.server),
            [
                "DNS localhost",
                "IP 127.0.0.1",
                "IP ::1",
                "DNS coordinator.internal",
                "IP 10.0.0.7",
                "URI clientele:coordinator",
            ]
        );
        assert_eq!(
            alternative_names_of(&files.worker),
            ["URI clientele:worker"]
        );
        assert_eq!(
            alternative_names_of(&files.client),
            ["URI clientele:client"]
        );
    }

    #[test]
    fn the_authority_lives_ten_years_and_the_others_one() {
        let (_folder, files) = made(&[]);
        let days = |path: &Path| {
            with_certificate(path, |certificate| {
                let left = certificate.validity().time_to_expiration().expect("valid");
                // Rounded: some seconds have passed.
                (left.whole_hours() + 1) / 24
            })
        };
        assert_eq!(days(&files.ca), 3_652);
        for leaf in [&files.server, &files.worker, &files.client] {
            assert_eq!(days(leaf), 365);
        }
    }

    #[test]
    fn only_the_authority_signs_and_only_the_server_serves() {
        let (_folder, files) = made(&[]);
        for (path, is_ca, serves, calls) in [
            (&files.ca, true, false, false),
            (&files.server, false, true, false),
            (&files.worker, false, false, true),
            (&files.client, false, false, true),
        ] {
            with_certificate(path, |certificate| {
                let usage = certificate.extended_key_usage().expect("readable");
                assert_eq!(certificate.is_ca(), is_ca, "{path:?}");
                assert_eq!(usage.as_ref().is_some_and(|u| u.value.server_auth), serves);
                assert_eq!(usage.as_ref().is_some_and(|u| u.value.client_auth), calls);
            });
        }
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, files) = made(&[]);
        for key in [
            &files.ca_key,
            &files.server_key,
            &files.worker_key,
            &files.client_key,
        ] {
            let mode = fs::metadata(key).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key:?}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_written_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("client-key.pem");
        fs::write(&there, "somebody's").expect("written");
        let error = init_certificates(folder.path(), &[]).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!(
                "`{}` exists, and certificates are never overwritten",
                there.display()
            )
        );
        assert_eq!(error.kind().exit_code(), 6);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
        assert_eq!(fs::read(&there).expect("read"), b"somebody's");
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for bad in [
            "",
            "https://host",
            "host:7070",
            "two words",
            "-a",
            "a..b",
            "müller.de",
            "[::1]",
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let error = init_certificates(folder.path(), &[bad.to_owned()]).expect_err(bad);
            assert_eq!(
                error.to_string(),
                format!("`{bad}` is neither a host name nor an IP address")
            );
            assert_eq!(error.kind().exit_code(), 2);
        }
        for good in ["a", "a-1.b_c", "*.internal", "fe80::1", "192.168.0.1"] {
            assert!(alternative_names(&[good.to_owned()]).is_ok(), "{good}");
        }
    }
}
