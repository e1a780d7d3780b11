//! Manners of connections between coordinator, workers and clients: nothing waits for ever, and nobody gets everything.
//!
//! gRPC sets none of these by itself. Without HTTP/2 keep-alive a connection never notices that the network in between was cut and
//! came back, and every call on it fails from then on.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use tonic::Request;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

/// The largest message that either side decodes; for `max_decoding_message_size` of every service and client.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// How long TCP may take to connect, and TLS after it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a side asks whether the other is there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the other side may take to say that it is.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Deadline of a call with one answer. Streams have none.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a coordinator works on a call before it begins to answer; longer than any client waits.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(60);

/// Calls and streams open at once on one connection: a worker has one, a person's terminal a few.
const MAX_STREAMS: u32 = 256;

/// Calls on one connection that are being worked on; more are refused at once, as `ResourceExhausted`.
const MAX_CALLS: usize = 64;

/// Of a call: a token and what gRPC adds are well below it.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Of an answer: an error comes in headers, and one that lists files is long.
const MAX_ERROR_BYTES: u32 = 64 << 10;

/// Of a stream: one frame of 1 MiB is read while the next one is on its way.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// Of all streams of a connection together: what a connection can make the other side hold.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Of HTTP/2, not ours: a megabyte in four pieces rather than in 64.
const HTTP2_FRAME_BYTES: u32 = 256 << 10;

/// A server with manners. `ServerSecurity::server` adds who may call it.
pub fn server() -> Server {
    // No `max_connection_age`: a worker keeps its one stream for as long as it lives.
    Server::builder()
        .timeout(HANDLER_TIMEOUT)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .concurrency_limit_per_connection(MAX_CALLS)
        .load_shed(true)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
}

/// Connections for `serve_with_incoming`, which takes none of the TCP settings of its server. Port 0 is any free one.
pub fn listen(address: SocketAddr) -> io::Result<TcpIncoming> {
    Ok(TcpIncoming::bind(address)?.with_nodelay(Some(true)))
}

/// Where to dial, with manners; without a deadline for calls, since streams live long.
pub(crate) fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .http2_max_header_list_size(MAX_ERROR_BYTES)
}

/// A question with one answer, and its deadline.
pub fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// A way out of a connection that failed, where the cause is known. `error` is a [`tonic::Status`] or what `connect` returns.
pub fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    // Text, since HTTP/2 passes on the words of TLS and not its types.
    const KNOWN: [(&str, &str); 10] = [
        (
            "CertificateRequired",
            "this coordinator asks for a client certificate: give `--tls-cert` and `--tls-key`",
        ),
        (
            "alert: UnknownCA",
            "this coordinator trusts another authority than the one that signed the file of `--tls-cert`",
        ),
        (
            "alert: DecryptError",
            "this coordinator trusts another authority than the one that signed the file of `--tls-cert`",
        ),
        (
            "certificate: UnknownIssuer",
            "`--tls-ca` is not the authority that signed the certificate of this coordinator",
        ),
        (
            "certificate not valid for name",
            "the certificate of this coordinator is for other hosts: dial one of those, or make one with `clientele certs init --host NAME`",
        ),
        (
            "certificate expired",
            "a certificate has expired: `clientele certs init` makes new ones in a new folder",
        ),
        (
            "CertificateExpired",
            "a certificate has expired: `clientele certs init` makes new ones in a new folder",
        ),
        (
            "InvalidContentType",
            "this coordinator has no TLS: write http:// instead of https://",
        ),
        (
            "frame with invalid size",
            "this is not gRPC in clear: does this coordinator have TLS? then write https:// instead of http://",
        ),
        (
            "Connection refused",
            "nothing listens there: is the coordinator running, and is this its address?",
        ),
    ];
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text.push_str(&error.to_string());
        text.push('\n');
        next = error.source();
    }
    KNOWN
        .iter()
        .find(|(cause, _)| text.contains(cause))
        .map(|(_, hint)| *hint)
}
