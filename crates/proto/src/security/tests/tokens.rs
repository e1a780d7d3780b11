//! Callers with tokens, with both, and with neither.

use super::*;

#[tokio::test]
async fn tokens_of_the_right_role_get_in() {
    let (_folder, tokens) = token_file();
    let coordinator = start(&plain_server(Some(tokens.clone()))).await;
    let client = coordinator.with_token(CLIENT_TOKEN);
    assert_eq!(client.list_jobs().await, "ok");
    let worker = coordinator.with_token(&format!("worker {WORKER_TOKEN}"));
    assert_eq!(worker.attend().await, "Unimplemented: ");
    assert_eq!(coordinator.refusals(), Refusals::default());
}

#[tokio::test]
async fn no_token_a_wrong_token_and_a_token_of_another_role_are_refused() {
    let (_folder, tokens) = token_file();
    let coordinator = start(&plain_server(Some(tokens))).await;
    let none = coordinator.caller(&Files::default());
    assert_eq!(
        none.list_jobs().await,
        "Unauthenticated: the call came with no token; give `--token-file`"
    );
    let wrong = coordinator.with_token("client-0123456789abcdeX");
    assert_eq!(
        wrong.list_jobs().await,
        "Unauthenticated: the token is not one of this coordinator's; \
         give a `--token-file` with a token from the coordinator's own"
    );
    let worker = coordinator.with_token(&format!("worker {WORKER_TOKEN}"));
    assert_eq!(
        worker.submit().await,
        "PermissionDenied: `/clientele.v1.JobsService/Submit` is for the role client, and the caller's role is worker; \
         use a certificate with the URI `clientele:client`, or a token of that role"
    );
    assert_eq!(coordinator.refusals(), refusals(2, 1));
}

#[tokio::test]
async fn headers_that_are_not_a_bearer_token_are_no_token() {
    let (_folder, tokens) = token_file();
    let coordinator = start(&plain_server(Some(tokens))).await;
    let none = "Unauthenticated: the call came with no token; give `--token-file`";
    let unknown = "Unauthenticated: the token is not one of this coordinator's; \
                   give a `--token-file` with a token from the coordinator's own";
    for (header, told) in [
        (format!("Bearer {CLIENT_TOKEN}"), "ok"),
        (format!("bearer {CLIENT_TOKEN}"), "ok"),
        (format!("Basic {CLIENT_TOKEN}"), none),
        (CLIENT_TOKEN.to_owned(), none),
        (String::new(), none),
        ("Bearer ".to_owned(), unknown),
        (format!("Bearer {CLIENT_TOKEN} "), unknown),
        (format!("Bearer  {CLIENT_TOKEN}"), unknown),
        (format!("Bearer client {CLIENT_TOKEN}"), unknown),
    ] {
        let caller = coordinator.caller(&Files::default());
        let mut jobs = JobsServiceClient::new(caller.connect().await.expect("connected"));
        let mut request = connection::call(v1::ListJobsRequest {});
        request
            .metadata_mut()
            .insert("authorization", header.parse().expect("a header"));
        assert_eq!(outcome(jobs.list_jobs(request).await), told, "{header:?}");
    }
}

#[tokio::test]
async fn health_is_for_anyone() {
    let (_folder, tokens) = token_file();
    let coordinator = start(&plain_server(Some(tokens))).await;
    assert_eq!(coordinator.caller(&Files::default()).health().await, "ok");
    let wrong = coordinator.with_token("not-a-token-of-anybody");
    assert_eq!(wrong.health().await, "ok");
    assert_eq!(coordinator.refusals(), Refusals::default());
}

#[tokio::test]
async fn with_tls_and_tokens_either_will_do() {
    let certs = Certs::new();
    let (_folder, tokens) = token_file();
    let coordinator = start(&certs.server(Some(tokens.clone()))).await;
    let nothing = Files {
        tls_ca: Some(certs.files.ca.clone()),
        ..Files::default()
    };
    assert_eq!(
        coordinator.caller(&nothing).list_jobs().await,
        "Unauthenticated: the call came with neither a client certificate nor a token; \
         give `--tls-cert` and `--tls-key`, or `--token-file`"
    );
    let token = Files {
        token_file: Some(tokens.clone()),
        ..nothing
    };
    assert_eq!(coordinator.caller(&token).list_jobs().await, "ok");
    let certificate = certs.caller(&coordinator, "client");
    assert_eq!(certificate.list_jobs().await, "ok");
    // The certificate says worker, the token says client.
    let both = Files {
        token_file: Some(tokens),
        ..certs.of("worker")
    };
    assert_eq!(coordinator.caller(&both).list_jobs().await, "ok");
    assert_eq!(coordinator.caller(&both).attend().await, "Unimplemented: ");
    assert_eq!(coordinator.refusals(), refusals(1, 0));
}

#[tokio::test]
async fn a_wrong_token_is_refused_beside_a_right_certificate() {
    let certs = Certs::new();
    let (_folder, tokens) = token_file();
    let coordinator = start(&certs.server(Some(tokens))).await;
    let (_wrong_folder, wrong) = file_with("not-a-token-of-anybody");
    let files = Files {
        token_file: Some(wrong),
        ..certs.of("client")
    };
    assert_eq!(
        coordinator.caller(&files).list_jobs().await,
        "Unauthenticated: the token is not one of this coordinator's; \
         give a `--token-file` with a token from the coordinator's own"
    );
}

#[tokio::test]
async fn on_loopback_everybody_has_every_role() {
    let coordinator = start(&plain_server(None)).await;
    let anyone = coordinator.caller(&Files::default());
    assert_eq!(anyone.list_jobs().await, "ok");
    assert_eq!(anyone.attend().await, "Unimplemented: ");
    // A token that nobody asked for is harmless.
    let token = coordinator.with_token(CLIENT_TOKEN);
    assert_eq!(token.list_jobs().await, "ok");
}

#[tokio::test]
async fn a_method_without_a_rule_is_denied_to_everybody() {
    let coordinator = start(&plain_server(None)).await;
    assert_eq!(
        coordinator.planted_method().await,
        "PermissionDenied: nobody may call `/clientele.v1.JobsService/ReadCustomers`; \
         if the coordinator should know this method, it may be of another version than the caller"
    );
    assert_eq!(coordinator.refusals(), refusals(0, 1));
    let (_folder, tokens) = token_file();
    let coordinator = start(&plain_server(Some(tokens))).await;
    assert_eq!(
        coordinator.planted_method().await,
        "Unauthenticated: the call came with no token; give `--token-file`"
    );
}

#[tokio::test]
async fn tls_and_no_tls_do_not_meet_without_a_word() {
    let certs = Certs::new();
    let mut plain = start(&plain_server(None)).await;
    plain.url = plain.url.replace("http://", "https://");
    let told = certs.caller(&plain, "client").list_jobs().await;
    assert_told(
        &told,
        "this coordinator has no TLS: write http:// instead of https://",
    );
}

#[tokio::test]
async fn where_nobody_listens_that_is_said() {
    let listener = connection::listen(loopback()).expect("bound");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let caller = Caller::new(&format!("http://{address}"), &Files::default());
    assert_told(
        &caller.list_jobs().await,
        "nothing listens there: is the coordinator running, and is this its address?",
    );
}
