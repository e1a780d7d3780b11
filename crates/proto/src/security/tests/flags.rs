//! What is wrong with the flags is said before anything is sent.

use std::fmt::Write as _;
use std::fs;

use super::super::SecurityError;
use super::*;

#[test]
fn an_open_coordinator_is_refused_with_the_way_out() {
    for listen in ["0.0.0.0:7070", "[::]:7070", "192.168.1.5:7070"] {
        let refused = ServerSecurity::new(address(listen), None, None, None, None);
        check_refused(
            refused,
            &format!(
                "error: listening on {listen} without TLS and without tokens would let everybody on the network in\n  \
                 hint: add these three, which `clientele certs init` makes, or `--token-file FILE`, or listen on 127.0.0.1\n    \
                 --tls-cert server.pem\n    --tls-key server-key.pem\n    --tls-ca ca.pem"
            ),
        );
    }
    for listen in [
        "127.0.0.1:7070",
        "127.8.8.8:0",
        "[::1]:7070",
        "[::ffff:127.0.0.1]:1",
    ] {
        let fine = ServerSecurity::new(address(listen), None, None, None, None).expect(listen);
        assert_eq!(fine.warnings(), [""; 0]);
    }
}

#[test]
fn tokens_without_tls_on_a_network_are_a_warning() {
    let (_folder, tokens) = token_file();
    let security = ServerSecurity::new(
        address("0.0.0.0:7070"),
        None,
        None,
        None,
        Some(tokens.clone()),
    );
    assert_eq!(
        security.expect("allowed").warnings(),
        [
            "tokens and data cross the network in clear: 0.0.0.0:7070 has no TLS; \
             `--tls-cert`, `--tls-key` and `--tls-ca` encrypt them"
        ]
    );
    let local = ServerSecurity::new(loopback(), None, None, None, Some(tokens));
    assert_eq!(local.expect("allowed").warnings(), [""; 0]);
}

#[test]
fn flags_of_tls_belong_together() {
    let file = || Some(PathBuf::from("any.pem"));
    let hint = "\n  hint: give --tls-cert, --tls-key, --tls-ca or none of them";
    for (cert, key, ca, fact) in [
        (file(), None, None, "--tls-cert is given without --tls-key"),
        (file(), file(), None, "--tls-cert is given without --tls-ca"),
        (
            None,
            file(),
            file(),
            "--tls-key is given without --tls-cert",
        ),
        (None, None, file(), "--tls-ca is given without --tls-cert"),
    ] {
        let refused = ServerSecurity::new(loopback(), cert, key, ca, None);
        check_refused(refused, &format!("error: {fact}{hint}"));
    }
}

#[test]
fn files_that_are_not_what_their_flags_say_are_named() {
    let certs = Certs::new();
    let files = &certs.files;
    let (_folder, garbage) = file_with("not PEM at all\n");
    let (_empty_folder, empty) = file_with("");
    let whole = fs::read_to_string(&files.server).expect("read");
    let (_broken_folder, broken) = file_with(&whole.replacen("MII", "AAA", 1));
    let (_cut_folder, cut) = file_with(&whole[..whole.len() / 2]);
    let (_locked_folder, locked) = file_with(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let gone = certs.folder.path().join("gone.pem");
    let init = "\n  hint: `clientele certs init` makes certificates and keys for a start";
    let check = |cert: &PathBuf, key: &PathBuf, ca: &PathBuf, wanted: String| {
        let server = ServerSecurity::new(
            loopback(),
            Some(cert.clone()),
            Some(key.clone()),
            Some(ca.clone()),
            None,
        );
        check_refused(server, &format!("error: {wanted}"));
        let caller = Files {
            tls_cert: Some(cert.clone()),
            tls_key: Some(key.clone()),
            tls_ca: Some(ca.clone()),
            token_file: None,
        };
        let client = ClientSecurity::with_files("https://localhost:1", &caller, false);
        check_refused(client, &format!("error: {wanted}"));
    };
    let (cert, key, ca) = (&files.server, &files.server_key, &files.ca);
    check(
        &gone,
        key,
        ca,
        format!(
            "cannot read `{}`, given with --tls-cert\n  caused by: No such file or directory (os error 2){init}",
            gone.display()
        ),
    );
    for (bad, is) in [
        (&garbage, "it is not PEM"),
        (&empty, "it is empty"),
        (&broken, "it is damaged"),
        (&cut, "it is damaged"),
        (key, "it holds a PRIVATE KEY"),
    ] {
        for (flag, cert, ca) in [("--tls-cert", bad, ca), ("--tls-ca", cert, bad)] {
            let file = bad.display();
            check(
                cert,
                key,
                ca,
                format!("`{file}`, given with {flag}, does not hold a certificate: {is}{init}"),
            );
        }
    }
    for (bad, is) in [
        (&garbage, "it is not PEM"),
        (cert, "it holds a CERTIFICATE"),
        (&locked, "it holds one that is locked with a password"),
    ] {
        let file = bad.display();
        check(
            cert,
            bad,
            ca,
            format!("`{file}`, given with --tls-key, does not hold a private key: {is}{init}"),
        );
    }
    check(
        cert,
        &files.worker_key,
        ca,
        format!(
            "certificate `{}` and key `{}` cannot be used together\n  caused by: transport error\n  \
             caused by: keys may not be consistent: KeyMismatch\n  hint: give the key that the certificate was made for; \
             `clientele certs init` names the two alike, as worker.pem and worker-key.pem",
            cert.display(),
            files.worker_key.display()
        ),
    );
}

#[cfg(unix)]
#[test]
fn secrets_that_others_can_read_are_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let certs = Certs::new();
    let (_folder, tokens) = token_file();
    let fine = certs.server(Some(tokens.clone()));
    assert_eq!(fine.warnings(), [""; 0]);
    for path in [&certs.files.server_key, &certs.files.client_key, &tokens] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
    }
    let warning = |what: &str, path: &PathBuf| {
        let path = path.display();
        format!(
            "{what} `{path}` can be read by other users of this machine (mode 0644); `chmod 600 {path}` ends that"
        )
    };
    assert_eq!(
        certs.server(Some(tokens.clone())).warnings(),
        [
            warning("token file", &tokens),
            warning("private key", &certs.files.server_key)
        ]
    );
    let files = Files {
        token_file: Some(tokens.clone()),
        ..certs.of("client")
    };
    let client = ClientSecurity::with_files("https://localhost:1", &files, false);
    assert_eq!(
        client.expect("allowed").warnings(),
        [
            warning("private key", &certs.files.client_key),
            warning("token file", &tokens)
        ]
    );
}

#[test]
fn addresses_are_checked_before_they_are_dialled() {
    let way =
        "\n  hint: write https://HOST:PORT, or http://HOST:PORT for a coordinator without TLS";
    for (url, reason) in [
        (
            "coordinator:7070",
            "it does not begin with https:// or http://",
        ),
        (
            "ftp://coordinator:7070",
            "it begins with neither https:// nor http://",
        ),
        ("http://coordinator", "it has no port"),
        ("http://:7070", "it has no host"),
        ("http://coordinator:7070/jobs", "it has a path"),
        ("http://two words:7070", "it is not a URL"),
        ("", "it is not a URL"),
    ] {
        check_refused(
            ClientSecurity::new(url, None, None, None, None),
            &format!("error: `{url}` is not the address of a coordinator: {reason}{way}"),
        );
    }
    check_refused(
        ClientSecurity::new("http://me:secret@host:1", None, None, None, None),
        &format!(
            "error: `...@host:1` is not the address of a coordinator: it holds a user name; a token comes with `--token-file`{way}"
        ),
    );
    for url in [
        "http://localhost:7070",
        "http://[::1]:7070/",
        "http://10.0.0.7:7070",
    ] {
        assert!(ClientSecurity::new(url, None, None, None, None).is_ok());
    }
}

#[test]
fn https_needs_an_authority_and_http_uses_none() {
    let certs = Certs::new();
    check_refused(
        ClientSecurity::new("https://coordinator:7070", None, None, None, None),
        "error: https://coordinator:7070 needs `--tls-ca`: without it, nothing says which coordinator is the right one\n  \
         hint: add `--tls-ca ca.pem`: the authority that signed the certificate of the coordinator",
    );
    let half = Files {
        tls_cert: None,
        ..certs.of("client")
    };
    check_refused(
        ClientSecurity::with_files("https://localhost:1", &half, false),
        "error: --tls-key is given without --tls-cert\n  hint: give --tls-cert, --tls-key or none of them",
    );
    check_refused(
        ClientSecurity::with_files("http://localhost:1", &certs.of("client"), false),
        "error: --tls-ca is given, but http://localhost:1 is not encrypted\n  \
         hint: write https:// for a coordinator with TLS, or leave the flags of TLS out",
    );
}

#[test]
fn tokens_do_not_cross_networks_in_clear() {
    let (_folder, path) = token_file();
    let files = Files {
        token_file: Some(path.clone()),
        ..Files::default()
    };
    for url in ["http://10.0.0.7:7070", "http://localhost.example.com:1"] {
        check_refused(
            ClientSecurity::with_files(url, &files, false),
            &format!(
                "error: the token of `{}` would cross the network in clear to {url}\n  \
                 hint: use https:// and `--tls-ca`; set CLIENTELE_PLAINTEXT_TOKENS=1 if something else encrypts this connection",
                path.display()
            ),
        );
        assert!(ClientSecurity::with_files(url, &files, true).is_ok());
    }
    for url in ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"] {
        assert!(
            ClientSecurity::with_files(url, &files, false).is_ok(),
            "{url}"
        );
    }
}

#[test]
fn tokens_and_keys_are_not_printed() {
    let certs = Certs::new();
    let (_folder, tokens) = token_file();
    let files = Files {
        token_file: Some(tokens.clone()),
        ..certs.of("client")
    };
    let client = ClientSecurity::with_files("https://localhost:1", &files, false).expect("fine");
    let server = certs.server(Some(tokens));
    let printed = format!("{client:?} {:?} {server:?}", client.interceptor());
    assert!(printed.contains("Sensitive"), "{printed}");
    for secret in ["0123456789abcdef", "PRIVATE", "45, 45, 45"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[track_caller]
fn check_refused<T>(refused: Result<T, SecurityError>, told: &str) {
    let Err(error) = refused else {
        panic!("accepted");
    };
    let mut text = with_causes(&error);
    if let Some(hint) = error.hint() {
        let _ = write!(text, "\n  hint: {hint}");
    }
    assert_eq!(text, told);
    assert_eq!(error.kind().exit_code(), 2);
}
