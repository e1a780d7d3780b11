//! What nobody of ours would send: refused with a fact, whatever it is, and never a panic.

use clientele_data::transform::Transform;
use clientele_proto::*;
use clientele_protocol::cluster::CoordinatorMessage;
use clientele_protocol::jobs::{FitJob, JobStatus};
use clientele_protocol::{Answer, Stage};
use proptest::prelude::*;
use prost::Message;

use crate::generators;
use crate::roundtrip::transform_of;

/// All decoders, one after the other; `stage` lends its transform.
fn decode_as_anything(bytes: &[u8], stage: &Stage) {
    // Whatever a decoder accepts can be sent on.
    if let Ok(stage) = decode_stage(bytes, &transform_of(stage)) {
        encode_stage(&stage);
    }
    if let Ok(answer) = decode_answer(bytes) {
        encode_answer(&answer);
    }
    if let Ok(message) = decode_worker_message(bytes) {
        encode_worker_message(&message);
    }
    if let Ok(message) = decode_coordinator_message(bytes) {
        encode_coordinator_message(&message);
    }
    let _ = v1::FitJob::decode(bytes).map(FitJob::try_from);
    let _ = v1::JobStatus::decode(bytes).map(JobStatus::try_from);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        stage in generators::stage(),
    ) {
        decode_as_anything(&bytes, &stage);
    }

    #[test]
    fn no_truncation_is_a_panic(stage in generators::stage(), answer in generators::answer()) {
        for bytes in [encode_stage(&stage), encode_answer(&answer)] {
            (0..bytes.len()).for_each(|end| decode_as_anything(&bytes[..end], &stage));
        }
    }

    #[test]
    fn no_truncated_message_is_a_panic(
        stage in generators::stage(),
        worker in generators::worker_message(),
        coordinator in generators::coordinator_message(),
        job in generators::fit_job(),
        status in generators::job_status(),
    ) {
        for bytes in [
            encode_worker_message(&worker),
            encode_coordinator_message(&coordinator),
            v1::FitJob::from(&job).encode_to_vec(),
            v1::JobStatus::from(&status).encode_to_vec(),
        ] {
            (0..bytes.len()).for_each(|end| decode_as_anything(&bytes[..end], &stage));
        }
    }

    #[test]
    fn no_flipped_bit_is_a_panic(
        stage in generators::stage(),
        answer in generators::answer(),
        coordinator in generators::coordinator_message(),
        bit in 0..8_u8,
    ) {
        for mut bytes in [encode_stage(&stage), encode_answer(&answer), encode_coordinator_message(&coordinator)] {
            for at in 0..bytes.len() {
                bytes[at] ^= 1_u8 << bit;
                decode_as_anything(&bytes, &stage);
                bytes[at] ^= 1_u8 << bit;
            }
        }
    }
}

#[track_caller]
fn check_answer(answer: v1::answer::Answer, refusal: &str) {
    let bytes = v1::Answer {
        answer: Some(answer),
    }
    .encode_to_vec();
    assert_eq!(decode_answer(&bytes).unwrap_err().to_string(), refusal);
}

#[track_caller]
fn check_stage(question: v1::stage::Question, refusal: &str) {
    let bytes = v1::Stage {
        question: Some(question),
    }
    .encode_to_vec();
    let refused = decode_stage(&bytes, &|_| Some(three_features().into())).unwrap_err();
    assert_eq!(refused.to_string(), refusal);
}

fn three_features() -> Transform {
    transform(|_| {}).1
}

/// A transform of three features that all pass, changed by `change`, and its JSON.
fn transform(change: impl Fn(&mut serde_json::Value)) -> (Vec<u8>, Transform) {
    let feature = serde_json::json!({
        "name": "spend", "kind": "identity", "clip_low": 0.0, "clip_high": 10.0,
        "mean": 0.0, "sd": 1.0, "impute": null, "offset": 5.0,
    });
    let mut json = serde_json::json!({
        "kind": "zscore",
        "grid_step_exponent": -19,
        "features": [feature.clone(), feature.clone(), feature],
        "warnings": [],
    });
    change(&mut json);
    let transform: Transform = serde_json::from_value(json).unwrap();
    (serde_json::to_vec(&transform).unwrap(), transform)
}

fn pass(counts: &[u64], sums: &[i64]) -> v1::answer::Answer {
    let partial = v1::Partial {
        counts: counts.to_vec(),
        sums: sums.to_vec(),
        ..v1::Partial::default()
    };
    v1::answer::Answer::Pass(v1::PassAnswer {
        partials: vec![partial],
    })
}

#[test]
fn a_partial_has_one_shape_and_rows_on_the_grid() {
    check_answer(pass(&[], &[]), "`n_clusters` is 0, outside of 1..=4096");
    check_answer(pass(&[1], &[]), "`n_features` is 0, outside of 1..=4096");
    check_answer(
        pass(&[1, 1], &[1, 2, 3]),
        "`sums` has 3 values where 2 belong",
    );
    check_answer(
        pass(&[1 << 35 | 1], &[0]),
        "`counts` is 34359738369, outside of 0..=34359738368",
    );
    check_answer(
        pass(&[2], &[2 << 22]),
        "`sums` is 8388608, outside of -8388606..=8388606",
    );
}

#[test]
fn wide_integers_have_sixteen_bytes() {
    let answer = v1::IngestAnswer {
        clipped_low: vec![0],
        total_squares: vec![0; 15],
        ..v1::IngestAnswer::default()
    };
    check_answer(
        v1::answer::Answer::Ingest(answer.clone()),
        "`total_squares` has 15 values where 16 belong",
    );
    let answer = v1::IngestAnswer {
        total_squares: vec![0; 16],
        sums: vec![0; 17],
        ..answer
    };
    check_answer(
        v1::answer::Answer::Ingest(answer),
        "`sums` has 17 values where 16 belong",
    );
}

#[test]
fn a_race_has_a_limit_and_every_position_once() {
    let race = v1::SeedAnswer {
        limit: 2,
        e: vec![1, 2],
        d2: vec![1, 1],
        keys: vec![7, 8],
        n_features: 1,
        rows: vec![3, 4],
    };
    let check = |change: &dyn Fn(&mut v1::SeedAnswer), refusal| {
        let mut race = race.clone();
        change(&mut race);
        check_answer(v1::answer::Answer::Seed(race), refusal);
    };
    check(
        &|race| race.limit = u32::MAX,
        "`limit` is 4294967295, outside of 0..=4096",
    );
    check(&|race| race.limit = 1, "`n_rows` is 2, outside of 0..=1");
    check(
        &|race| race.rows = vec![3, 3],
        "`rows` has 2 values where 1 belong",
    );
    check(
        &|race| race.n_features = 0,
        "`n_features` is 0, outside of 1..=4096",
    );
    check(
        &|race| race.n_features = 4_000,
        "`rows` has 2 values where 8000 belong",
    );
    check(
        &|race| race.rows[0] = 1 << 22,
        "`rows` is 4194304, outside of -4194303..=4194303",
    );
    check(
        &|race| race.rows[0] = i32::MIN,
        "`rows` is -2147483648, outside of -4194303..=4194303",
    );
    check(
        &|race| race.d2[0] = 0,
        "`d2` is 0, outside of 1..=288230376151711743",
    );
}

/// 84 bytes that ask for a histogram of 2^34 bytes.
#[test]
fn a_small_message_gets_no_large_histogram() {
    let histograms = v1::Histograms {
        n_features: 4_096,
        ..v1::Histograms::default()
    };
    let mut answer = v1::FinalAnswer {
        sizes: vec![0],
        inertia: vec![0; 16],
        seconds: vec![0],
        margins: vec![0; 20],
        row_hashes: vec![0; 32],
        histograms: Some(histograms),
        ..v1::FinalAnswer::default()
    };
    check_answer(
        v1::answer::Answer::Final(answer.clone()),
        "`n_used` has 0 values where 4096 belong",
    );
    answer.sizes = vec![0; 2_000];
    answer.seconds = vec![0; 4_000_000];
    answer.margins = vec![0; 40_000];
    check_answer(
        v1::answer::Answer::Final(answer),
        "`n_cells` is 8192000, outside of 0..=4194304",
    );
}

#[test]
fn bins_and_digits_beyond_the_last_are_refused() {
    let histogram = v1::DigitHistogram {
        gaps: vec![u32::MAX, u32::MAX],
        n_values: vec![1, 1],
        mins: vec![0, 0],
        spans: vec![0, 0],
    };
    let features = vec![v1::FeatureStats {
        histograms: vec![histogram],
        ..v1::FeatureStats::default()
    }];
    check_answer(
        v1::answer::Answer::Statistics(v1::StatisticsAnswer {
            features,
            ..v1::StatisticsAnswer::default()
        }),
        "`gaps` is 4294967295, outside of 0..=262143",
    );
}

#[test]
fn an_example_of_a_duplicate_is_a_hash() {
    check_answer(
        v1::answer::Answer::Duplicates(v1::DuplicatesAnswer {
            n_surplus: 1,
            examples: vec!["customer@example.org".to_owned()],
        }),
        "`examples` is \"\" and must be hashes of 16 hexadecimal digits",
    );
}

#[test]
fn centroids_are_rectangular_and_on_the_grid_of_their_transform() {
    let check = |n_features, values: &[i32], refusal| {
        let centroids = v1::Centroids {
            n_features,
            values: values.to_vec(),
        };
        check_stage(
            v1::stage::Question::Final(v1::FinalStage {
                transform_hash: vec![0; 32],
                centroids: Some(centroids),
            }),
            refusal,
        );
    };
    check(0, &[1], "`n_features` is 0, outside of 1..=4096");
    check(
        u32::MAX,
        &[1],
        "`n_features` is 4294967295, outside of 1..=4096",
    );
    check(3, &[], "`values` has 0 values where 3 belong");
    check(3, &[1, 2, 3, 4], "`values` has 4 values where 3 belong");
    check(2, &[1, 2], "`n_features` has 2 values where 3 belong");
    check(
        3,
        &[1, 2, i32::MIN],
        "`values` is -2147483648, outside of -4194303..=4194303",
    );
}

#[test]
fn a_stage_names_a_transform_that_came_before() {
    let ingest = |transform_hash| v1::Stage {
        question: Some(v1::stage::Question::Ingest(v1::IngestStage {
            transform_hash,
            fingerprints: false,
        })),
    };
    let refused = |hash| decode_stage(&ingest(hash).encode_to_vec(), &|_| None).unwrap_err();
    assert_eq!(
        refused(vec![0; 32]).to_string(),
        format!("transform {} is not known here", "00".repeat(32))
    );
    assert_eq!(
        refused(vec![0; 31]).to_string(),
        "`transform_hash` has 31 values where 32 belong"
    );
}

#[test]
fn what_an_enum_does_not_name_is_refused() {
    for (shape, refusal) in [
        (0, "`shape` is 0, outside of 1..=2"),
        (77, "`shape` is 77, outside of 1..=2"),
    ] {
        let moments = v1::MomentGrid {
            shape,
            clip_low: Some(0.0),
            clip_high: Some(1.0),
        };
        let feature = v1::FeatureRequest {
            digits: Vec::new(),
            moments: Some(moments),
        };
        check_stage(
            v1::stage::Question::Statistics(v1::StatisticsStage {
                round: 1,
                features: vec![feature],
            }),
            refusal,
        );
    }
}

#[test]
fn a_range_is_one_of_numbers() {
    for (shape, low, high) in [
        (1, f64::NAN, 1.0),
        (1, 0.0, f64::INFINITY),
        (1, 1.0, 0.0),
        (2, -1.0, 1.0),
        (2, -3.0, 1.0),
    ] {
        let moments = v1::MomentGrid {
            shape,
            clip_low: Some(low),
            clip_high: Some(high),
        };
        let feature = v1::FeatureRequest {
            digits: Vec::new(),
            moments: Some(moments),
        };
        let question = v1::stage::Question::Statistics(v1::StatisticsStage {
            round: 1,
            features: vec![feature],
        });
        let bytes = v1::Stage {
            question: Some(question),
        }
        .encode_to_vec();
        let refused = decode_stage(&bytes, &|_| None);
        assert!(
            matches!(refused, Err(WireError::Text { .. })),
            "{low}..{high}"
        );
    }
}

fn decode_transform(json: Vec<u8>) -> Result<CoordinatorMessage, WireError> {
    let key = Some(v1::RunKey {
        run: "a".to_owned(),
        epoch: 1,
    });
    let message = v1::coordinator_message::Message::Transform(v1::Transform { key, json });
    decode_coordinator_message(
        &v1::CoordinatorMessage {
            message: Some(message),
        }
        .encode_to_vec(),
    )
}

#[test]
fn a_transform_that_leaves_the_grid_is_refused() {
    assert!(decode_transform(transform(|_| {}).0).is_ok());
    let check = |field: &str, value: f64| {
        let (json, _) = transform(|json| json["features"][1][field] = value.into());
        let refused = decode_transform(json).unwrap_err().to_string();
        assert!(
            refused.ends_with("unusable: feature 1 leaves the grid"),
            "{field}: {refused}"
        );
    };
    check("clip_high", 1e6);
    check("clip_high", -1.0);
    check("offset", -50.0);
    check("sd", 1e-9);
    check("sd", -1.0);
    check("mean", 1e300);
    for exponent in [-5_000, 5_000, i32::MAX, i32::MIN + 1] {
        let (json, _) = transform(|json| json["grid_step_exponent"] = exponent.into());
        assert!(decode_transform(json).is_err(), "{exponent}");
    }
    let (json, _) = transform(|json| json["features"] = serde_json::json!([]));
    assert!(decode_transform(json).is_err());
}

#[test]
fn a_transform_has_one_spelling() {
    let (mut json, _) = transform(|_| {});
    json.push(b' ');
    let refused = decode_transform(json).unwrap_err().to_string();
    assert!(refused.contains("not in the one form"), "{refused}");
}

#[test]
fn a_run_and_a_location_stay_where_they_belong() {
    for run in ["", "../a", "a b", &"a".repeat(65), "ä"] {
        assert!(run_name(run.to_owned()).is_err(), "{run}");
    }
    let mut status = v1::JobStatus {
        run: "a".to_owned(),
        out: Some(v1::Location {
            store: "lake".to_owned(),
            key: "../secrets".to_owned(),
        }),
        state: 2,
        ..v1::JobStatus::default()
    };
    assert_eq!(
        JobStatus::try_from(status.clone()).unwrap_err().to_string(),
        "`out` is \"lake:../secrets\" and must be an alias of a store and a relative key"
    );
    status.out = None;
    assert_eq!(
        JobStatus::try_from(status).unwrap_err().to_string(),
        "`out` is missing"
    );
}

/// The refusals above are worth nothing if everything is refused.
#[test]
fn a_message_beside_the_limits_is_taken() {
    let bytes = v1::Answer {
        answer: Some(pass(&[2], &[2 * ((1 << 22) - 1)])),
    }
    .encode_to_vec();
    assert!(matches!(decode_answer(&bytes), Ok(Answer::Pass(partials)) if partials.len() == 1));
}
