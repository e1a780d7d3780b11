//! Messages, calls and silences that are too long.

use std::time::Duration;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn messages_have_a_limit() {
    let coordinator = start(&plain_server(None)).await;
    let caller = coordinator.caller(&Files::default());
    assert_eq!(caller.submit_bytes(MAX_MESSAGE_BYTES - 100).await, "ok");
    // 100 MiB of story, with 5 bytes of length before it and as many around the job.
    assert_eq!(
        caller.submit_bytes(100 << 20).await,
        "OutOfRange: Error, decoded message length too large: found 104857610 bytes, the limit is: 4194304 bytes"
    );
    assert_eq!(caller.list_jobs().await, "ok");
}

#[tokio::test]
async fn a_connection_with_too_many_calls_is_told_so() {
    let coordinator = start(&plain_server(None)).await;
    let channel = coordinator.caller(&Files::default()).connect().await;
    let jobs = JobsServiceClient::new(channel.expect("connected"));
    let mut calls = JoinSet::new();
    for _ in 0..65 {
        let mut jobs = jobs.clone();
        calls.spawn(async move {
            outcome(
                jobs.get_job(connection::call(v1::GetJobRequest::default()))
                    .await,
            )
        });
    }
    // 64 are waiting in the service, so the first to return is the one too many.
    let first = calls.join_next().await.expect("65 calls").expect("ran");
    assert_eq!(
        first,
        "ResourceExhausted: Too many active requests for the connection"
    );
    coordinator.gate.add_permits(64);
    assert_eq!(calls.join_all().await, vec!["ok"; 64]);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_fell_silent_is_given_up_on() {
    let security = ClientSecurity::new("http://127.0.0.1:1", None, None, None, None);
    let (near, _far) = tokio::io::duplex(1 << 20);
    let mut near = Some(hyper_util::rt::TokioIo::new(near));
    let dial = tower::service_fn(move |_| {
        let io = near.take();
        async move { io.ok_or_else(|| std::io::Error::other("dialled twice")) }
    });
    let began = tokio::time::Instant::now();
    let endpoint = security.expect("plain").endpoint().clone();
    let channel = endpoint.connect_with_connector(dial).await;
    let mut jobs = JobsServiceClient::new(channel.expect("connected"));
    let silent = jobs.list_jobs(v1::ListJobsRequest {}).await;
    assert!(silent.is_err());
    let waited = began.elapsed();
    let limit = connection::KEEP_ALIVE_INTERVAL + connection::KEEP_ALIVE_TIMEOUT;
    assert!(waited <= limit + Duration::from_millis(100), "{waited:?}");
}
