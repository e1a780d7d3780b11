//! `/metrics` for Prometheus, `/livez` and `/readyz`, on a port of their own. No run, worker or customer is named in a label.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use clientele_proto::security::AuthorizeLayer;
use clientele_protocol::jobs::JobState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::cluster::Cluster;

/// What a coordinator counts.
pub struct Metrics {
    registry: Registry,
    is_ready: AtomicBool,
    workers: Gauge,
    jobs: Family<StateLabel, Gauge>,
    parts_leased: Gauge,
    leased_parts: Counter,
    counted_parts: Counter,
    reopened_parts: Counter,
    twin_parts: Counter,
    rows_per_second: Gauge<f64, AtomicU64>,
    refused_jobs: Gauge,
    unauthenticated_calls: Counter,
    denied_calls: Counter,
    pub(super) foreign_answers: Counter,
    pub(super) bytes_to_workers: Counter,
    pub(super) bytes_from_workers: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet; not ready.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("clientele"),
            is_ready: AtomicBool::new(false),
            workers: Gauge::default(),
            jobs: Family::default(),
            parts_leased: Gauge::default(),
            leased_parts: Counter::default(),
            counted_parts: Counter::default(),
            reopened_parts: Counter::default(),
            twin_parts: Counter::default(),
            rows_per_second: Gauge::default(),
            refused_jobs: Gauge::default(),
            unauthenticated_calls: Counter::default(),
            denied_calls: Counter::default(),
            foreign_answers: Counter::default(),
            bytes_to_workers: Counter::default(),
            bytes_from_workers: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("workers", "Workers connected", metrics.workers.clone());
        registry.register("jobs", "Jobs, by state", metrics.jobs.clone());
        registry.register(
            "parts_leased",
            "Parts that workers are computing",
            metrics.parts_leased.clone(),
        );
        let parts = [
            (
                "leased_parts",
                "Parts given to a worker",
                &metrics.leased_parts,
            ),
            ("counted_parts", "Parts answered", &metrics.counted_parts),
            (
                "reopened_parts",
                "Parts given again, since a worker died, left or failed",
                &metrics.reopened_parts,
            ),
            (
                "twin_parts",
                "Parts given to a second worker, since the first was late",
                &metrics.twin_parts,
            ),
        ];
        for (name, help, counter) in parts {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "rows_per_second",
            "Sum of the workers' speeds in their last leases",
            metrics.rows_per_second.clone(),
        );
        registry.register(
            "refused_jobs",
            "Jobs refused because the queue was full, since the start",
            metrics.refused_jobs.clone(),
        );
        registry.register(
            "unauthenticated_calls",
            "Calls of nobody we know",
            metrics.unauthenticated_calls.clone(),
        );
        registry.register(
            "denied_calls",
            "Calls of somebody whose role may not",
            metrics.denied_calls.clone(),
        );
        registry.register(
            "foreign_answers",
            "Answers to questions that were not asked, or no longer",
            metrics.foreign_answers.clone(),
        );
        registry.register(
            "sent_bytes",
            "Bytes of messages to workers",
            metrics.bytes_to_workers.clone(),
        );
        registry.register(
            "received_bytes",
            "Bytes of messages from workers",
            metrics.bytes_from_workers.clone(),
        );
        metrics
    }

    /// Whether new work is taken.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }

    pub(super) fn observe(&self, cluster: &Cluster, gate: &AuthorizeLayer, now: Duration) {
        let refusals = gate.refusals();
        for (counter, total) in [
            (&self.unauthenticated_calls, refusals.n_unauthenticated),
            (&self.denied_calls, refusals.n_denied),
        ] {
            counter.inner().store(total, Ordering::Relaxed);
        }
        let workers = cluster.workers(now);
        self.workers.set(workers.len() as i64);
        let n_leased: u64 = workers.iter().map(|worker| worker.n_leased).sum();
        self.parts_leased
            .set(i64::try_from(n_leased).unwrap_or(i64::MAX));
        self.rows_per_second
            .set(workers.iter().map(|worker| worker.rows_per_second).sum());
        self.refused_jobs
            .set(i64::try_from(cluster.n_refused()).unwrap_or(i64::MAX));
        let totals = cluster.totals();
        for (counter, total) in [
            (&self.leased_parts, totals.n_leased),
            (&self.counted_parts, totals.n_counted),
            (&self.reopened_parts, totals.n_reopened),
            (&self.twin_parts, totals.n_twins),
        ] {
            counter.inner().store(total, Ordering::Relaxed);
        }
        for (state, n_jobs) in cluster.n_jobs() {
            self.jobs
                .get_or_create(&StateLabel { state: name(state) })
                .set(n_jobs);
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail; an empty page would show if it did.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Publishing => "publishing",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// Serves the three pages until `shutdown`.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let ready = metrics.clone();
    let pages = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match ready.is_ready.load(Ordering::Relaxed) {
                    true => (StatusCode::OK, "ok\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], metrics.text())
            }),
        );
    axum::serve(listener, pages)
        .with_graceful_shutdown(shutdown)
        .await
}
