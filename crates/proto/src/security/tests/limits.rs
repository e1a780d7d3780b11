//! Messages, calls and silences that are too long.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
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
async fn long_errors_arrive() {
    let coordinator = start(&plain_server(None)).await;
    let channel = coordinator.caller(&Files::default()).connect().await;
    let mut jobs = JobsServiceClient::new(channel.expect("connected"));
    let run = "x".repeat(40_000);
    let told = jobs.cancel_job(v1::CancelJobRequest { run: run.clone() });
    assert_eq!(outcome(told.await), format!("Aborted: {run}"));
}

#[tokio::test]
async fn a_connection_with_too_many_calls_is_told_so() {
    let coordinator = start(&plain_server(None)).await;
    let channel = coordinator.caller(&Files::default()).connect().await;
    let jobs = JobsServiceClient::new(channel.expect("connected"));
    let mut calls = JoinSet::new();
    for _ in 0..65 {
        let mut jobs = jobs.clone();
        let waits = connection::call(v1::GetJobRequest::default());
        calls.spawn(async move { outcome(jobs.get_job(waits).await) });
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

// Silence: the other end is a pipe that takes everything and says nothing, and time is tokio's.

#[tokio::test(start_paused = true)]
async fn a_call_to_a_coordinator_that_fell_silent_ends() {
    let (channel, _far) = dial_silence().await;
    let mut jobs = JobsServiceClient::new(channel);
    let call = jobs.list_jobs(v1::ListJobsRequest {});
    assert!(in_time(call).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_to_a_coordinator_that_fell_silent_ends() {
    let (_channel, mut far) = dial_silence().await;
    in_time(far.read_to_end(&mut Vec::new()))
        .await
        .expect("closed");
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_a_worker_that_fell_silent_ends() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::once(Ok::<_, io::Error>(near));
    let server = plain_server(None).server().add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    far.write_all(PREFACE).await.expect("written");
    far.write_all(NO_SETTINGS).await.expect("written");
    in_time(far.read_to_end(&mut Vec::new()))
        .await
        .expect("closed");
}

/// A connection, and its other end.
async fn dial_silence() -> (Channel, DuplexStream) {
    let security = ClientSecurity::new("http://127.0.0.1:1", None, None, None, None);
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut near = Some(TokioIo::new(near));
    let dial = tower::service_fn(move |_| {
        let io = near.take();
        async move { io.ok_or_else(|| io::Error::other("dialled twice")) }
    });
    let endpoint = security.expect("plain").endpoint().clone();
    let channel = endpoint.connect_with_connector(dial).await;
    (channel.expect("connected"), far)
}

/// What comes within one question for a sign of life, and the time to answer it.
async fn in_time<T>(awaited: impl Future<Output = T>) -> T {
    let limit = connection::KEEP_ALIVE_INTERVAL + connection::KEEP_ALIVE_TIMEOUT;
    let awaited = tokio::time::timeout(limit + Duration::from_millis(100), awaited);
    awaited.await.expect("given up on")
}
