//! The simulated network as tonic wants it, and a channel on which some answers come twice.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use clientele_proto::security::ClientSecurity;
use clientele_protocol::cluster::WorkerMessage;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Bytes, Service, http};
use tonic::transport::server::Connected;
use tonic::transport::{self, Channel};
use turmoil::net::{TcpListener, TcpStream};

use crate::common::Mix;

/// The host that everybody dials.
pub const COORDINATOR: &str = "coordinator";
const PORT: u16 = 7_070;

/// A simulated TCP stream.
pub struct Stream(TcpStream);

impl Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connections to this host.
pub async fn listen() -> io::Result<ReceiverStream<io::Result<Stream>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (sender, incoming) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let accepted = listener.accept().await.map(|(stream, _)| Stream(stream));
            if sender.send(accepted).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(incoming))
}

/// A connection to the coordinator, with the manners of a real one.
pub async fn dial() -> Result<Channel, transport::Error> {
    let url = format!("http://{COORDINATOR}:{PORT}");
    let security = ClientSecurity::new(&url, None, None, None, None).unwrap();
    let connect = tower::service_fn(|_: http::Uri| async {
        let stream = TcpStream::connect((COORDINATOR, PORT)).await?;
        Ok::<_, io::Error>(TokioIo::new(Stream(stream)))
    });
    security.endpoint().connect_with_connector(connect).await
}

/// What went over the channels of a simulation.
#[derive(Default)]
pub struct Counts {
    /// Answers, repeated ones not counted.
    pub n_answers: AtomicU64,
    /// Answers that were sent again.
    pub n_repeated: AtomicU64,
}

/// How a worker's answers are repeated.
#[derive(Clone)]
pub struct Repeats {
    pub worker: String,
    pub seed: u64,
    /// Of all answers.
    pub share: f64,
    pub counts: Arc<Counts>,
}

/// A channel on which some answers come twice.
pub struct RepeatingChannel {
    pub inner: Channel,
    pub repeats: Repeats,
}

impl Service<http::Request<Body>> for RepeatingChannel {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = transport::channel::ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let repeats = self.repeats.clone();
        self.inner.call(request.map(|inner| {
            Body::new(RepeatingBody {
                inner,
                mix: Mix(repeats.seed),
                repeats,
                at_once: VecDeque::new(),
                after_the_next: VecDeque::new(),
            })
        }))
    }
}

struct RepeatingBody {
    inner: Body,
    mix: Mix,
    repeats: Repeats,
    at_once: VecDeque<Bytes>,
    after_the_next: VecDeque<Bytes>,
}

impl http_body::Body for RepeatingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        if let Some(again) = self.at_once.pop_front() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(again))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let due = std::mem::take(&mut self.after_the_next);
            self.at_once.extend(due);
            self.look_at(data);
        }
        Poll::Ready(frame)
    }
}

impl RepeatingBody {
    /// `data` holds whole gRPC messages, each after a flag and four bytes of length.
    fn look_at(&mut self, data: &Bytes) {
        let mut start = 0;
        while let Some(header) = data.get(start..start + 5) {
            let n_bytes = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            let message = data.slice(start..start + 5 + n_bytes);
            start += 5 + n_bytes;
            let said = first_field(&message[5..])
                .and_then(first_field)
                .unwrap_or_default();
            if let Ok(said) = clientele_proto::decode_worker_message(said) {
                self.note(message, &said);
            }
        }
    }

    fn note(&mut self, message: Bytes, said: &WorkerMessage) {
        let Repeats { worker, counts, .. } = &self.repeats;
        let WorkerMessage::Reply { reply, .. } = said else {
            if *said != WorkerMessage::Heartbeat {
                tracing::info!(worker, "says {}", name(said));
            }
            return;
        };
        let parts: Vec<u32> = reply.parts.iter().map(|part| part.0).collect();
        let (life, stage) = (reply.key.epoch, reply.seq.0);
        counts.n_answers.fetch_add(1, Ordering::Relaxed);
        let is_repeated = self.mix.next() < self.repeats.share;
        tracing::info!(
            worker,
            life,
            stage,
            ?parts,
            is_repeated,
            ok = reply.body.is_ok(),
            "answers"
        );
        if is_repeated {
            counts.n_repeated.fetch_add(1, Ordering::Relaxed);
            match self.mix.next() < 0.5 {
                true => self.at_once.push_back(message),
                false => self.after_the_next.push_back(message),
            }
        }
    }
}

fn name(said: &WorkerMessage) -> &'static str {
    match said {
        WorkerMessage::Registration(_) => "that it is there",
        WorkerMessage::RunOpened {
            resident: Ok(_), ..
        } => "that it has opened the run",
        WorkerMessage::RunOpened { .. } => "that it cannot open the run",
        WorkerMessage::Draining => "that it leaves",
        WorkerMessage::Heartbeat | WorkerMessage::Reply { .. } => "something",
    }
}

/// The first field of a protocol buffer, if it is number 1 and has a length.
fn first_field(message: &[u8]) -> Option<&[u8]> {
    let (0x0a, rest) = message.split_first().map(|(tag, rest)| (*tag, rest))? else {
        return None;
    };
    let n_length = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let length = rest[..n_length].iter().rev();
    let n_bytes = length.fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    rest.get(n_length..n_length + n_bytes)
}
