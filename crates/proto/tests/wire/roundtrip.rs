//! What is encoded is decoded as it was.

use std::sync::Arc;

use clientele_data::stats::{FeatureRequest, MomentGrid, StatsRequest};
use clientele_data::transform::{Shape, Transform};
use clientele_kmeans::Partial;
use clientele_proto::*;
use clientele_protocol::cluster::{Digest, WorkerMessage};
use clientele_protocol::jobs::{FitJob, JobStatus, WorkerStatus};
use clientele_protocol::{Answer, Stage, TaskError};
use proptest::prelude::*;

use crate::generators;

/// Knows the transform of `stage` only.
pub fn transform_of(stage: &Stage) -> impl Fn(&Digest) -> Option<Arc<Transform>> {
    let known = stage.transform().cloned();
    move |hash| known.clone().filter(|known| known.hash() == *hash)
}

/// Equality of answers, and of what has no say in the order of rows and therefore none in their equality.
fn assert_same(found: &Answer, expected: &Answer) {
    assert_eq!(found, expected);
    match (found, expected) {
        (Answer::Seed(found), Answer::Seed(expected)) => {
            assert!(found.entries().eq(expected.entries()));
        }
        (Answer::Relocate(found), Answer::Relocate(expected)) => {
            let pairs = found.iter().zip(expected);
            pairs.for_each(|(found, expected)| assert!(found.rows().eq(expected.rows())));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stages(stage in generators::stage()) {
        let bytes = encode_stage(&stage);
        let back = decode_stage(&bytes, &transform_of(&stage)).unwrap();
        prop_assert_eq!(&back, &stage);
        prop_assert_eq!(encode_stage(&back), bytes);
    }

    #[test]
    fn answers(answer in generators::answer()) {
        let bytes = encode_answer(&answer);
        let back = decode_answer(&bytes).unwrap();
        assert_same(&back, &answer);
        prop_assert_eq!(encode_answer(&back), bytes);
        prop_assert_eq!(answer_digest(&back), answer_digest(&answer));
    }

    #[test]
    fn what_workers_say(message in generators::worker_message()) {
        let back = decode_worker_message(&encode_worker_message(&message)).unwrap();
        prop_assert_eq!(&back, &message);
        if let (WorkerMessage::Reply { reply: back, .. }, WorkerMessage::Reply { reply, .. }) = (&back, &message)
            && let (Ok(back), Ok(answer)) = (&back.body, &reply.body)
        {
            assert_same(back, answer);
        }
    }

    #[test]
    fn what_the_coordinator_says(message in generators::coordinator_message()) {
        let back = decode_coordinator_message(&encode_coordinator_message(&message)).unwrap();
        prop_assert_eq!(back, message);
    }

    #[test]
    fn jobs(job in generators::fit_job(), status in generators::job_status(), worker in generators::worker_status()) {
        prop_assert_eq!(FitJob::try_from(v1::FitJob::from(&job)).unwrap(), job);
        prop_assert_eq!(JobStatus::try_from(v1::JobStatus::from(&status)).unwrap(), status);
        prop_assert_eq!(WorkerStatus::from(v1::WorkerStatus::from(&worker)), worker);
    }

    #[test]
    fn errors(error in generators::task_error()) {
        prop_assert_eq!(TaskError::try_from(v1::TaskError::from(&error)).unwrap(), error);
    }

    #[test]
    fn a_digest_is_of_what_decides(partial in generators::partial(), at in any::<prop::sample::Index>()) {
        let digest = |partial: &Partial| answer_digest(&Answer::Pass(vec![partial.clone()]));
        let display = Partial { n_moved: Some(1), n_rechecked: 77, ..partial.clone() };
        prop_assert_eq!(digest(&display), digest(&partial));
        let mut wrong = partial.clone();
        wrong.sums[at.index(partial.sums.len())] += 1;
        prop_assert_ne!(digest(&wrong), digest(&partial));
        let mut wrong = partial.clone();
        wrong.counts[at.index(partial.counts.len())] += 1;
        prop_assert_ne!(digest(&wrong), digest(&partial));
    }
}

#[test]
fn a_range_keeps_its_bits() {
    for (low, high) in [
        (-0.0, 0.0),
        (0.1 + 0.2, f64::MAX),
        (f64::MIN_POSITIVE / 3.0, 1.0),
    ] {
        let grid = MomentGrid::from_parts(Shape::Identity, low, high).unwrap();
        let feature = FeatureRequest {
            digits: Vec::new(),
            moments: Some(grid),
        };
        let stage = Stage::Statistics(StatsRequest {
            round: 2,
            features: vec![feature],
        });
        let Stage::Statistics(back) = decode_stage(&encode_stage(&stage), &|_| None).unwrap()
        else {
            panic!("another stage");
        };
        let back = back.features[0].moments.unwrap();
        assert_eq!(
            [back.clip_low(), back.clip_high()].map(f64::to_bits),
            [low, high].map(f64::to_bits)
        );
    }
}

/// A million rows, half a standard deviation of 2^20 steps from the middle: what a shard answers a candidate.
#[test]
fn an_answer_to_a_pass_is_a_few_bytes_a_sum() {
    let (n_clusters, n_features) = (8, 16);
    let mut partial = Partial::zero(n_clusters, n_features);
    partial.counts.fill(131_072);
    for (i, sum) in partial.sums.iter_mut().enumerate() {
        *sum = 131_072 * (500_000 + i as i64) * if i % 2 == 0 { 1 } else { -1 };
    }
    partial.n_moved = Some(12_345);
    let n_bytes = encode_answer(&Answer::Pass(vec![partial])).len();
    println!("{n_bytes} bytes");
    assert!(n_bytes < 1_000, "{n_bytes} bytes");
}
