//! Callers with certificates.

use std::time::{Duration, SystemTime};

use super::super::development_ca::LIFETIME;
use super::*;

#[tokio::test]
async fn certificates_of_the_right_role_get_in() {
    let certs = Certs::new();
    let coordinator = start(&certs.server(None)).await;
    let client = certs.caller(&coordinator, "client");
    assert_eq!(client.list_jobs().await, "ok");
    assert_eq!(client.submit().await, "ok");
    // Past the gate, there is no such service.
    let worker = certs.caller(&coordinator, "worker");
    assert_eq!(worker.attend().await, "Unimplemented: ");
    assert_eq!(coordinator.refusals(), Refusals::default());
}

#[tokio::test]
async fn certificates_of_the_wrong_role_are_denied() {
    let certs = Certs::new();
    let coordinator = start(&certs.server(None)).await;
    assert_eq!(
        certs.caller(&coordinator, "worker").submit().await,
        "PermissionDenied: `/clientele.v1.JobsService/Submit` is for the role client, and the caller's role is worker; \
         use a certificate with the URI `clientele:client`, or a token of that role"
    );
    assert_eq!(
        certs.caller(&coordinator, "client").attend().await,
        "PermissionDenied: `/clientele.v1.WorkService/Attend` is for the role worker, and the caller's role is client; \
         use a certificate with the URI `clientele:worker`, or a token of that role"
    );
    assert_eq!(coordinator.refusals(), refusals(0, 2));
}

#[tokio::test]
async fn without_a_certificate_there_is_no_connection() {
    let certs = Certs::new();
    let coordinator = start(&certs.server(None)).await;
    let anonymous = Files {
        tls_ca: Some(certs.files.ca.clone()),
        ..Files::default()
    };
    let told = coordinator.caller(&anonymous).list_jobs().await;
    assert_told(
        &told,
        "this coordinator asks for a client certificate: give `--tls-cert` and `--tls-key`",
    );
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused() {
    let (certs, foreign) = (Certs::new(), Certs::new());
    let coordinator = start(&certs.server(None)).await;
    let intruder = Files {
        tls_ca: Some(certs.files.ca.clone()),
        tls_cert: Some(foreign.files.client.clone()),
        tls_key: Some(foreign.files.client_key.clone()),
        ..Files::default()
    };
    let told = coordinator.caller(&intruder).list_jobs().await;
    assert_told(
        &told,
        "this coordinator trusts another authority than the one that signed the file of `--tls-cert`",
    );
}

#[tokio::test]
async fn a_coordinator_of_another_authority_is_not_trusted() {
    let (certs, foreign) = (Certs::new(), Certs::new());
    let coordinator = start(&foreign.server(None)).await;
    let told = certs.caller(&coordinator, "client").list_jobs().await;
    assert_told(
        &told,
        "`--tls-ca` is not the authority that signed the certificate of this coordinator",
    );
}

#[tokio::test]
async fn a_worker_cannot_pose_as_the_coordinator() {
    let certs = Certs::new();
    let impostor = ServerSecurity::new(
        loopback(),
        Some(certs.files.worker.clone()),
        Some(certs.files.worker_key.clone()),
        Some(certs.files.ca.clone()),
        None,
    );
    let coordinator = start(&impostor.expect("a pair")).await;
    let told = certs.caller(&coordinator, "client").list_jobs().await;
    assert!(told.contains("invalid peer certificate"), "{told}");
}

// 127.0.0.2 is this machine on Linux only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_coordinator_under_another_name_is_not_trusted() {
    let certs = Certs::new();
    let mut coordinator = start_at("0.0.0.0:0", &certs.server(None)).await;
    coordinator.url = coordinator.url.replace("0.0.0.0", "127.0.0.2");
    let told = certs.caller(&coordinator, "client").list_jobs().await;
    assert_told(
        &told,
        "the certificate of this coordinator is for other hosts: dial one of those, \
         or make one with `clientele certs init --host NAME`",
    );
}

#[tokio::test]
async fn certificates_without_a_role_are_denied() {
    for uris in [&[][..], &["clientele:admin"], &["clientele:client/"]] {
        let certs = Certs::minted(uris, SystemTime::now());
        let coordinator = start(&certs.server(None)).await;
        let told = certs.caller(&coordinator, "client").list_jobs().await;
        assert_eq!(
            told,
            "PermissionDenied: `/clientele.v1.JobsService/ListJobs` is for the role client, and the caller's role is nobody; \
             use a certificate with the URI `clientele:client`, or a token of that role"
        );
    }
}

#[tokio::test]
async fn certificates_of_both_roles_may_do_both() {
    let certs = Certs::minted(&["clientele:worker", "clientele:client"], SystemTime::now());
    let coordinator = start(&certs.server(None)).await;
    let both = certs.caller(&coordinator, "client");
    assert_eq!(both.list_jobs().await, "ok");
    assert_eq!(both.attend().await, "Unimplemented: ");
}

#[tokio::test]
async fn certificates_that_have_expired_are_refused() {
    let made = SystemTime::now() - LIFETIME - Duration::from_secs(2);
    let certs = Certs::minted(&["clientele:client"], made);
    let coordinator = start(&certs.server(None)).await;
    let told = certs.caller(&coordinator, "client").list_jobs().await;
    assert_told(
        &told,
        "a certificate has expired: `clientele certs init` makes new ones in a new folder",
    );
}
