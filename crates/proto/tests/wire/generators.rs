//! Messages of every kind, small and with all values that there can be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::duplicates::Duplicates;
use clientele_data::ingest::IngestPartial;
use clientele_data::read::ColumnCounts;
use clientele_data::stats::{
    Bucket, Digit, FeatureRequest, FeatureStats, MomentGrid, Moments, StatsPartial, StatsRequest,
};
use clientele_data::transform::{Shape, Transform, TransformKind};
use clientele_data::{ErrorKind, Location, NullPolicy};
use clientele_kmeans::relocate::{FarRow, FarthestRows};
use clientele_kmeans::seeding::{Race, RaceEntry, SeedRound};
use clientele_kmeans::{Centroids, GRID_LIMIT, Partial};
use clientele_protocol::cluster::{
    CoordinatorMessage, Digest, OpenRun, Registration, WorkerMessage,
};
use clientele_protocol::jobs::{FitJob, JobProgress, JobState, JobStatus, WorkerStatus};
use clientele_protocol::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Features of every message that has any: shapes must agree.
pub const N_FEATURES: usize = 3;
const MAX_ROWS: u64 = clientele_kmeans::MAX_ROWS;

pub fn stage() -> impl Strategy<Value = Stage> {
    let statistics = (any::<u32>(), vec(feature_request(), 1..5))
        .prop_map(|(round, features)| Stage::Statistics(StatsRequest { round, features }));
    let ingest = (transform(), any::<bool>()).prop_map(|(transform, fingerprints)| Stage::Ingest {
        transform,
        fingerprints,
    });
    let duplicates = (1..u32::MAX, any::<u32>())
        .prop_map(|(n_ranges, n_shards)| Stage::Duplicates { n_ranges, n_shards });
    let round = (any::<u32>(), any::<u64>(), option::of(centroids()), limit());
    let seed = (transform(), round).prop_map(|(transform, (round, seed, candidates, limit))| {
        let round = SeedRound {
            round,
            seed,
            candidates,
            limit,
        };
        Stage::Seed { transform, round }
    });
    let weigh = (transform(), centroids()).prop_map(|(transform, candidates)| Stage::Weigh {
        transform,
        candidates: Arc::new(candidates),
    });
    let pass = (transform(), vec((any::<u32>(), centroids()), 0..5)).prop_map(
        |(transform, candidates)| {
            let (ids, centroids) = candidates
                .into_iter()
                .map(|(id, centroids)| (CandidateId(id), centroids))
                .unzip();
            Stage::Pass {
                transform,
                ids,
                centroids,
            }
        },
    );
    let request = (any::<u32>(), centroids(), limit()).prop_map(|(candidate, centroids, limit)| {
        RelocateRequest {
            candidate: CandidateId(candidate),
            centroids,
            limit,
        }
    });
    let relocate =
        (transform(), vec(request, 0..4)).prop_map(|(transform, requests)| Stage::Relocate {
            transform,
            requests,
        });
    let last = (transform(), centroids()).prop_map(|(transform, centroids)| Stage::Final {
        transform,
        centroids: Arc::new(centroids),
    });
    prop_oneof![
        statistics, ingest, duplicates, seed, weigh, pass, relocate, last
    ]
}

pub fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        statistics().prop_map(|partial| Answer::Statistics(Box::new(partial))),
        ingest().prop_map(|partial| Answer::Ingest(Box::new(partial))),
        duplicates().prop_map(Answer::Duplicates),
        race().prop_map(Answer::Seed),
        vec(n_rows(), 0..9).prop_map(Answer::Weigh),
        vec(partial(), 0..4).prop_map(Answer::Pass),
        vec(farthest(), 0..4).prop_map(Answer::Relocate),
        outcome().prop_map(|partial| Answer::Final(Box::new(partial))),
    ]
}

pub fn worker_message() -> impl Strategy<Value = WorkerMessage> {
    let registration = (
        any::<u32>(),
        text(),
        text(),
        vec(text(), 0..3),
        any::<u64>(),
        any::<u32>(),
        vec(text(), 0..3),
    )
        .prop_map(|fields| {
            let (protocol_version, algorithm_version, name, devices, memory_bytes, ..) = fields;
            WorkerMessage::Registration(Registration {
                protocol_version,
                algorithm_version,
                name,
                devices,
                memory_bytes,
                n_threads: fields.5,
                stores: fields.6,
            })
        });
    let resident = prop_oneof![
        vec((0..u32::MAX).prop_map(PartId), 0..4).prop_map(Ok),
        task_error().prop_map(Err),
    ];
    let opened = (run_key(), resident)
        .prop_map(|(key, resident)| WorkerMessage::RunOpened { key, resident });
    let reply = (reply(), digest()).prop_map(|(reply, stage_hash)| WorkerMessage::Reply {
        reply: Box::new(reply),
        stage_hash,
    });
    prop_oneof![
        registration,
        Just(WorkerMessage::Heartbeat),
        opened,
        reply,
        Just(WorkerMessage::Draining),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let body = prop_oneof![answer().prop_map(Ok), task_error().prop_map(Err)];
    let ran = (text(), any::<u64>()).prop_map(|(backend, n_rows)| RowsBy { backend, n_rows });
    (
        run_key(),
        any::<u64>(),
        parts(),
        body,
        vec(ran, 0..3),
        any::<u64>(),
        0..1_u64 << 50,
    )
        .prop_map(
            |(key, seq, parts, body, ran, n_rescued, elapsed_us)| Reply {
                key,
                seq: StageSeq(seq),
                parts,
                body,
                ran,
                n_rescued,
                elapsed: Duration::from_micros(elapsed_us),
            },
        )
}

pub fn coordinator_message() -> impl Strategy<Value = CoordinatorMessage> {
    let welcome = (any::<u32>(), 1..u32::MAX).prop_map(|(worker, heartbeat_ms)| {
        CoordinatorMessage::Welcome {
            worker: WorkerId(worker),
            heartbeat_ms,
        }
    });
    let open_run = (run_key(), location(), vec(any::<u8>(), 0..40), digest()).prop_map(
        |(key, out, nonce, manifest_hash)| {
            CoordinatorMessage::OpenRun(OpenRun {
                key,
                out,
                nonce,
                manifest_hash,
            })
        },
    );
    let transform = (run_key(), transform())
        .prop_map(|(key, transform)| CoordinatorMessage::Transform { key, transform });
    let open_stage = (run_key(), any::<u64>(), stage()).prop_map(|(key, seq, stage)| {
        CoordinatorMessage::OpenStage {
            key,
            seq: StageSeq(seq),
            stage: Arc::new(clientele_proto::encode_stage(&stage)),
        }
    });
    let lease =
        (run_key(), any::<u64>(), digest(), parts()).prop_map(|(key, seq, stage_hash, parts)| {
            CoordinatorMessage::Lease {
                key,
                seq: StageSeq(seq),
                stage_hash,
                parts,
            }
        });
    prop_oneof![
        welcome,
        open_run,
        transform,
        open_stage,
        lease,
        run_key().prop_map(CoordinatorMessage::CloseRun),
    ]
}

pub fn fit_job() -> impl Strategy<Value = FitJob> {
    let names = (option::of(text()), vec(text(), 0..3), option::of(text()));
    let nulls = prop_oneof![
        Just(NullPolicy::Impute),
        Just(NullPolicy::Fail),
        Just(NullPolicy::Drop)
    ];
    let places = (vec(location(), 0..3), location());
    let rest = (text(), any::<bool>(), any::<u64>());
    (names, nulls, places, fit_spec(), rest).prop_map(
        |((id, columns, value), nulls, (tables, out), spec, (story, adopt_out, wait))| FitJob {
            tables,
            id,
            columns,
            value,
            nulls,
            out,
            spec,
            story,
            adopt_out,
            wait_for_workers_ms: wait,
        },
    )
}

fn fit_spec() -> impl Strategy<Value = FitSpec> {
    let transform = prop_oneof![
        Just(TransformKind::Auto),
        Just(TransformKind::Zscore),
        Just(TransformKind::None)
    ];
    let models = prop_oneof![
        (0..5_000_usize, 0..5_000_usize).prop_map(|k_range| (k_range, None)),
        vec(vec(-1e300..1e300, 2), 1..5).prop_map(|rows| ((rows.len(), rows.len()), Some(rows))),
    ];
    (
        models,
        any::<u32>(),
        any::<u64>(),
        transform,
        any::<u32>(),
        0.0..1.0,
        any::<bool>(),
    )
        .prop_map(
            |((k_range, init), n_restarts, seed, transform, max_iter, tol, halving)| FitSpec {
                k_range,
                n_restarts,
                init,
                seed,
                transform,
                max_iter,
                tol,
                halving,
            },
        )
}

pub fn job_status() -> impl Strategy<Value = JobStatus> {
    let state = prop_oneof![
        Just(JobState::Queued),
        Just(JobState::Running),
        Just(JobState::Publishing),
        Just(JobState::Done),
        Just(JobState::Failed),
        Just(JobState::Cancelled),
    ];
    (
        run_name(),
        location(),
        state,
        option::of(progress()),
        option::of(task_error()),
        option::of("[ -~]{1,9}"),
        any::<(u64, u64)>(),
    )
        .prop_map(
            |(run, out, state, progress, error, summary, (submitted_ms, epoch))| JobStatus {
                run,
                out,
                state,
                progress,
                error,
                summary,
                submitted_ms,
                epoch,
            },
        )
}

fn progress() -> impl Strategy<Value = JobProgress> {
    (
        text(),
        any::<(u64, u64, u64, u32, u32)>(),
        any::<Option<u64>>(),
        option::of(-1e9..1e9),
        any::<(u64, u64, bool)>(),
    )
        .prop_map(
            |(stage, (n_done, n_parts, n_rows, pass, n_live), n_moved, inertia, times)| {
                JobProgress {
                    stage,
                    n_done,
                    n_parts,
                    n_rows,
                    pass,
                    n_live,
                    n_moved,
                    inertia,
                    elapsed_ms: times.0,
                    running_ms: times.1,
                    is_waiting: times.2,
                }
            },
        )
}

pub fn worker_status() -> impl Strategy<Value = WorkerStatus> {
    (
        any::<(u32, u64, u64, u64)>(),
        text(),
        vec(text(), 0..3),
        0.0..1e12,
    )
        .prop_map(
            |((worker, n_shards, heard_ms, n_leased), name, devices, rows_per_second)| {
                WorkerStatus {
                    worker: WorkerId(worker),
                    name,
                    devices,
                    n_shards,
                    rows_per_second,
                    heard_ms,
                    n_leased,
                }
            },
        )
}

pub fn task_error() -> impl Strategy<Value = TaskError> {
    let kind = prop_oneof![
        Just(ErrorKind::Bug),
        Just(ErrorKind::Usage),
        Just(ErrorKind::Input),
        Just(ErrorKind::Changed),
        Just(ErrorKind::Transient),
        Just(ErrorKind::Conflict),
        Just(ErrorKind::Limit),
        Just(ErrorKind::Auth),
    ];
    (kind, text(), vec(text(), 0..3), option::of(text())).prop_map(
        |(kind, message, causes, hint)| TaskError {
            kind,
            message,
            causes,
            hint,
        },
    )
}

/// Of three features, one of them constant now and then.
pub fn transform() -> impl Strategy<Value = Arc<Transform>> {
    let feature = (
        0.0..100.0,
        prop_oneof![Just(0.0), 0.0..100.0],
        -5.0..5.0,
        0.5..3.0,
        any::<bool>(),
    )
        .prop_map(|(low, width, mean, sd, log): (f64, f64, f64, f64, bool)| {
            serde_json::json!({
                "name": "spend",
                "kind": if log { "log1p" } else { "identity" },
                "clip_low": low,
                "clip_high": low + width,
                "mean": mean,
                "sd": sd,
                "impute": log.then_some(low),
                "offset": 0.25,
            })
        });
    vec(feature, N_FEATURES).prop_map(|features| {
        let json = serde_json::json!({
            "kind": "auto",
            "grid_step_exponent": -12,
            "features": features,
            "warnings": ["a sentence"],
        });
        Arc::new(serde_json::from_value(json).expect("a transform"))
    })
}

pub fn partial() -> impl Strategy<Value = Partial> {
    let cluster = (n_rows(), vec(grid(), N_FEATURES));
    (vec(cluster, 1..6), option::of(n_rows()), n_rows()).prop_map(
        |(clusters, n_moved, n_rechecked)| Partial {
            counts: clusters.iter().map(|(count, _)| *count).collect(),
            sums: clusters
                .iter()
                .flat_map(|(count, qs)| qs.iter().map(|q| *count as i64 * i64::from(*q)))
                .collect(),
            n_moved,
            n_rechecked,
        },
    )
}

fn statistics() -> impl Strategy<Value = StatsPartial> {
    (n_rows(), n_rows(), vec(feature_stats(), 1..4)).prop_map(|(n_rows, n_dropped, features)| {
        StatsPartial::from_parts(n_rows, n_dropped, features)
    })
}

fn feature_stats() -> impl Strategy<Value = FeatureStats> {
    let counts =
        (n_rows(), n_rows(), n_rows(), n_rows()).prop_map(|(nulls, nans, pos_inf, neg_inf)| {
            ColumnCounts {
                nulls,
                nans,
                pos_inf,
                neg_inf,
            }
        });
    let bucket = (1..=MAX_ROWS, any::<u64>(), any::<u64>()).prop_map(|(n_values, a, b)| Bucket {
        n_values,
        min: a.min(b),
        max: a.max(b),
    });
    let digit = prop_oneof![0..5_u32, 0..1_u32 << 18, Just((1 << 18) - 1)];
    let histogram = vec((digit, bucket), 0..6).prop_map(BTreeMap::from_iter);
    let moments = prop_oneof![
        Just(Moments::default()),
        (n_rows(), -(1_i128 << 39)..1 << 39).prop_map(|(n_values, place)| Moments {
            n_values,
            sum: place * i128::from(n_values),
            squares: place * place * i128::from(n_values),
        })
    ];
    (counts, vec(histogram, 0..3), moments).prop_map(|(counts, histograms, moments)| FeatureStats {
        counts,
        histograms,
        moments,
    })
}

fn ingest() -> impl Strategy<Value = IngestPartial> {
    let feature = (grid(), n_rows(), n_rows(), n_rows());
    let rows = (n_rows(), n_rows(), n_rows(), any::<i64>());
    (rows, vec(feature, 1..5)).prop_map(|((n_rows, n_dropped, n_valued, value), features)| {
        let n = i128::from(n_rows);
        let q = |feature: &(i32, u64, u64, u64)| i128::from(feature.0);
        IngestPartial {
            n_rows,
            n_dropped,
            total_squares: features.iter().map(|f| n * q(f) * q(f)).sum(),
            sums: features.iter().map(|f| n * q(f)).collect(),
            squares: features.iter().map(|f| n * q(f) * q(f)).collect(),
            clipped_low: features.iter().map(|f| f.1).collect(),
            clipped_high: features.iter().map(|f| f.2).collect(),
            imputed: features.iter().map(|f| f.3).collect(),
            value_total: i128::from(value) * i128::from(n_valued),
            n_valued,
        }
    })
}

fn duplicates() -> impl Strategy<Value = Duplicates> {
    (n_rows(), vec("[0-9a-f]{16}", 0..=5)).prop_map(|(n_surplus, examples)| Duplicates {
        n_surplus,
        examples,
    })
}

fn race() -> impl Strategy<Value = Race> {
    let entry = (0..1_u64 << 46, 0..1_u64 << 58, any::<u64>(), row());
    (limit(), vec(entry, 0..8)).prop_map(|(limit, entries)| {
        let mut race = Race::new(limit);
        for (e, d2, key, row) in &entries {
            let (e, d2, key) = (*e, *d2, *key);
            race.offer(RaceEntry { e, d2, key, row });
        }
        race
    })
}

fn farthest() -> impl Strategy<Value = FarthestRows> {
    let row = (0..1_u64 << 58, any::<u64>(), 0..4_096_u16, row());
    (limit(), vec(row, 0..8)).prop_map(|(limit, rows)| {
        let mut far = FarthestRows::new(limit);
        for (d2, key, donor, row) in &rows {
            let (d2, key, donor) = (*d2, *key, *donor);
            far.offer(FarRow {
                d2,
                key,
                donor,
                row,
            });
        }
        far
    })
}

fn outcome() -> impl Strategy<Value = FinalPartial> {
    let rows = vec((0..3_usize, vec(grid(), N_FEATURES), any::<i64>()), 0..30);
    (1..4_usize, any::<bool>(), rows).prop_map(|(n_clusters, has_values, rows)| {
        let mut partial = FinalPartial::zero(n_clusters, N_FEATURES, has_values);
        for (row_idx, (cluster_idx, row, value)) in rows.iter().enumerate() {
            let cluster_idx = cluster_idx % n_clusters;
            partial.sizes[cluster_idx] += 1;
            partial.inertia += u128::from(value.unsigned_abs() >> 6);
            partial.seconds[row_idx % (n_clusters * n_clusters)] += 1;
            partial.margins[row_idx % (n_clusters * MARGIN_BINS)] += 1;
            for (feature_idx, q) in row.iter().enumerate() {
                let range = GRID_LIMIT - 1;
                partial
                    .histograms
                    .add(cluster_idx, feature_idx, *q, -range, range);
            }
            partial.row_hashes.add(&blake3::hash(&value.to_le_bytes()));
            if has_values {
                partial.values[cluster_idx] += i128::from(*value);
                partial.valued[cluster_idx] += 1;
            }
        }
        partial
    })
}

fn feature_request() -> impl Strategy<Value = FeatureRequest> {
    let digit = (0..5_usize, any::<u64>()).prop_map(|(n_above, bits)| {
        let n_bits = [0, 18, 35, 50, 0][n_above];
        Digit::from_parts(bits & ((1 << n_bits) - 1), n_above).expect("a digit")
    });
    let grid = (any::<bool>(), -0.5..1e9, 0.0..1e9).prop_map(|(log, low, width)| {
        let shape = if log { Shape::Log1p } else { Shape::Identity };
        MomentGrid::from_parts(shape, low, low + width).expect("a range")
    });
    (vec(digit, 0..3), option::of(grid))
        .prop_map(|(digits, moments)| FeatureRequest { digits, moments })
}

fn centroids() -> impl Strategy<Value = Centroids> {
    vec(row(), 1..5).prop_map(|rows| Centroids::new(N_FEATURES, rows.concat()))
}

fn row() -> impl Strategy<Value = Vec<i32>> {
    vec(grid(), N_FEATURES)
}

fn grid() -> impl Strategy<Value = i32> {
    prop_oneof![
        -2..3,
        1 - GRID_LIMIT..GRID_LIMIT,
        Just(1 - GRID_LIMIT),
        Just(GRID_LIMIT - 1)
    ]
}

fn n_rows() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, 0..=MAX_ROWS, Just(MAX_ROWS)]
}

fn limit() -> impl Strategy<Value = usize> {
    prop_oneof![0..5_usize, 0..=4_096_usize]
}

fn parts() -> impl Strategy<Value = Vec<PartId>> {
    vec(any::<u32>().prop_map(PartId), 1..5)
}

fn run_key() -> impl Strategy<Value = RunKey> {
    (run_name(), any::<u64>()).prop_map(|(run, epoch)| RunKey { run, epoch })
}

fn run_name() -> &'static str {
    "[a-zA-Z0-9_-]{1,64}"
}

fn location() -> impl Strategy<Value = Location> {
    ("[a-z0-9_-]{1,64}", "([a-z]{1,5}(/[a-z*]{1,5}){0,3})?")
        .prop_map(|(store, key)| Location::new(&store, &key).expect("a location"))
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from)
}

fn text() -> &'static str {
    "\\PC{0,12}"
}
