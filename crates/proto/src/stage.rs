//! The questions.

use std::sync::Arc;

use clientele_data::stats::{Digit, FeatureRequest, MomentGrid, StatsRequest};
use clientele_data::transform::{Shape, Transform};
use clientele_kmeans::seeding::SeedRound;
use clientele_kmeans::{Centroids, MAX_CLUSTERS};
use clientele_protocol::cluster::Digest;
use clientele_protocol::{CandidateId, MAX_PASS_VALUES, RelocateRequest, Stage};
use prost::Message;

use crate::check::{self, required, wire_size};
use crate::v1::stage::Question;
use crate::{WireError, v1};

/// Encodes a stage; its transform is only named.
pub fn encode_stage(stage: &Stage) -> Vec<u8> {
    v1::Stage::from(stage).encode_to_vec()
}

/// Decodes a stage; `transform` knows the transforms that came before it.
///
/// # Errors
/// [`WireError`] when these are not the bytes of a stage that makes sense, or its transform is not known.
pub fn decode_stage(
    bytes: &[u8],
    transform: &dyn Fn(&Digest) -> Option<Arc<Transform>>,
) -> Result<Stage, WireError> {
    let stage: v1::Stage = check::decode("Stage", bytes)?;
    let named = |bytes: &[u8]| {
        let hash = check::digest("transform_hash", bytes)?;
        transform(&hash).ok_or(WireError::UnknownTransform { hash })
    };
    Ok(match required("question", stage.question)? {
        Question::Statistics(asked) => Stage::Statistics(asked.try_into()?),
        Question::Ingest(asked) => Stage::Ingest {
            transform: named(&asked.transform_hash)?,
            fingerprints: asked.fingerprints,
        },
        Question::Duplicates(asked) => Stage::Duplicates {
            n_ranges: check::within("n_ranges", asked.n_ranges, 1..=u32::MAX.into())?,
            n_shards: asked.n_shards,
        },
        Question::Seed(asked) => {
            let transform = named(&asked.transform_hash)?;
            let candidates = asked.candidates.map(|c| rows_of(c, &transform));
            let round = SeedRound {
                round: asked.round,
                seed: asked.seed,
                candidates: candidates.transpose()?,
                limit: limit(asked.limit)?,
            };
            Stage::Seed { transform, round }
        }
        Question::Weigh(asked) => {
            let transform = named(&asked.transform_hash)?;
            let candidates = rows_of(required("candidates", asked.candidates)?, &transform)?;
            Stage::Weigh {
                transform,
                candidates: Arc::new(candidates),
            }
        }
        Question::Pass(asked) => pass(named(&asked.transform_hash)?, asked)?,
        Question::Relocate(asked) => {
            let transform = named(&asked.transform_hash)?;
            let requests = asked.requests.into_iter().map(|request| {
                Ok(RelocateRequest {
                    candidate: CandidateId(request.candidate),
                    centroids: model_of(request.centroids, &transform)?,
                    limit: limit(request.limit)?,
                })
            });
            Stage::Relocate {
                requests: requests.collect::<Result<_, WireError>>()?,
                transform,
            }
        }
        Question::Final(asked) => {
            let transform = named(&asked.transform_hash)?;
            Stage::Final {
                centroids: Arc::new(model_of(asked.centroids, &transform)?),
                transform,
            }
        }
    })
}

fn pass(transform: Arc<Transform>, asked: v1::PassStage) -> Result<Stage, WireError> {
    check::shape("ids", asked.ids.len(), asked.centroids.len())?;
    let n_values: usize = asked.centroids.iter().map(|c| c.values.len()).sum();
    check::within("n_values", n_values as u64, 0..=MAX_PASS_VALUES as i128)?;
    let centroids = asked.centroids.into_iter();
    Ok(Stage::Pass {
        ids: asked.ids.into_iter().map(CandidateId).collect(),
        centroids: centroids
            .map(|c| model_of(Some(c), &transform))
            .collect::<Result<_, _>>()?,
        transform,
    })
}

/// Grid rows in the space of `transform`: as many as a seeding has found.
fn rows_of(message: v1::Centroids, transform: &Transform) -> Result<Centroids, WireError> {
    let rows = Centroids::try_from(message)?;
    check::shape("n_features", rows.n_features(), transform.n_features())?;
    Ok(rows)
}

/// The centroids of a model.
fn model_of(message: Option<v1::Centroids>, transform: &Transform) -> Result<Centroids, WireError> {
    let model = rows_of(required("centroids", message)?, transform)?;
    check::within(
        "n_clusters",
        model.n_clusters() as u64,
        1..=MAX_CLUSTERS as i128,
    )?;
    Ok(model)
}

/// How many rows may win.
pub(crate) fn limit(limit: u32) -> Result<usize, WireError> {
    check::size("limit", limit, 0..=MAX_CLUSTERS as i128)
}

impl From<&Stage> for v1::Stage {
    fn from(stage: &Stage) -> Self {
        let transform_hash = stage
            .transform()
            .map_or_else(Vec::new, |transform| transform.hash().as_bytes().to_vec());
        let question = match stage {
            Stage::Statistics(request) => Question::Statistics(request.into()),
            Stage::Ingest { fingerprints, .. } => Question::Ingest(v1::IngestStage {
                transform_hash,
                fingerprints: *fingerprints,
            }),
            Stage::Duplicates { n_ranges, n_shards } => Question::Duplicates(v1::DuplicatesStage {
                n_ranges: *n_ranges,
                n_shards: *n_shards,
            }),
            Stage::Seed { round, .. } => Question::Seed(v1::SeedStage {
                transform_hash,
                round: round.round,
                seed: round.seed,
                candidates: round.candidates.as_ref().map(Into::into),
                limit: wire_size(round.limit),
            }),
            Stage::Weigh { candidates, .. } => Question::Weigh(v1::WeighStage {
                transform_hash,
                candidates: Some((&**candidates).into()),
            }),
            Stage::Pass { ids, centroids, .. } => Question::Pass(v1::PassStage {
                transform_hash,
                ids: ids.iter().map(|id| id.0).collect(),
                centroids: centroids.iter().map(Into::into).collect(),
            }),
            Stage::Relocate { requests, .. } => Question::Relocate(v1::RelocateStage {
                transform_hash,
                requests: requests.iter().map(Into::into).collect(),
            }),
            Stage::Final { centroids, .. } => Question::Final(v1::FinalStage {
                transform_hash,
                centroids: Some((&**centroids).into()),
            }),
        };
        Self {
            question: Some(question),
        }
    }
}

impl From<&RelocateRequest> for v1::RelocateRequest {
    fn from(request: &RelocateRequest) -> Self {
        Self {
            candidate: request.candidate.0,
            centroids: Some((&request.centroids).into()),
            limit: wire_size(request.limit),
        }
    }
}

impl From<&Centroids> for v1::Centroids {
    fn from(centroids: &Centroids) -> Self {
        Self {
            n_features: wire_size(centroids.n_features()),
            values: centroids.values().to_vec(),
        }
    }
}

impl TryFrom<v1::Centroids> for Centroids {
    type Error = WireError;

    fn try_from(message: v1::Centroids) -> Result<Self, WireError> {
        let v1::Centroids { n_features, values } = message;
        let n_clusters = values.len() / n_features.max(1) as usize;
        // A number of clusters that the values do not make is found here as well.
        let n_features = check::grid_rows("values", n_clusters.max(1), n_features, &values)?;
        Ok(Self::new(n_features, values))
    }
}

impl From<&StatsRequest> for v1::StatisticsStage {
    fn from(request: &StatsRequest) -> Self {
        Self {
            round: request.round,
            features: request.features.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::StatisticsStage> for StatsRequest {
    type Error = WireError;

    fn try_from(message: v1::StatisticsStage) -> Result<Self, WireError> {
        let v1::StatisticsStage { round, features } = message;
        check::within("n_features", features.len() as u64, check::FEATURES)?;
        let features = features.into_iter().map(TryInto::try_into);
        Ok(Self {
            round,
            features: features.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&FeatureRequest> for v1::FeatureRequest {
    fn from(request: &FeatureRequest) -> Self {
        let digits = request.digits.iter().map(|digit| v1::Digit {
            prefix: digit.prefix(),
            n_above: wire_size(digit.n_above()),
        });
        Self {
            digits: digits.collect(),
            moments: request.moments.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::FeatureRequest> for FeatureRequest {
    type Error = WireError;

    fn try_from(message: v1::FeatureRequest) -> Result<Self, WireError> {
        let digits = message.digits.iter().map(|digit| {
            Digit::from_parts(digit.prefix, digit.n_above as usize).ok_or(WireError::Range {
                field: "prefix",
                found: digit.prefix.into(),
                low: 0,
                // Of 18, 17, 15 and 14 bits; below the last there are only all values together.
                high: [0, (1 << 18) - 1, (1 << 35) - 1, (1 << 50) - 1, 0]
                    .get(digit.n_above as usize)
                    .copied()
                    .unwrap_or(-1),
            })
        });
        Ok(Self {
            digits: digits.collect::<Result<_, _>>()?,
            moments: message.moments.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&MomentGrid> for v1::MomentGrid {
    fn from(grid: &MomentGrid) -> Self {
        let shape = match grid.shape() {
            Shape::Identity => v1::Shape::Identity,
            Shape::Log1p => v1::Shape::Log1p,
        };
        Self {
            shape: shape.into(),
            clip_low: Some(grid.clip_low()),
            clip_high: Some(grid.clip_high()),
        }
    }
}

impl TryFrom<v1::MomentGrid> for MomentGrid {
    type Error = WireError;

    fn try_from(message: v1::MomentGrid) -> Result<Self, WireError> {
        let shape = match message.shape() {
            v1::Shape::Identity => Shape::Identity,
            v1::Shape::Log1p => Shape::Log1p,
            v1::Shape::Unspecified => {
                return Err(check::unknown("shape", message.shape, 1..=2));
            }
        };
        let low = required("clip_low", message.clip_low)?;
        let high = required("clip_high", message.clip_high)?;
        MomentGrid::from_parts(shape, low, high).ok_or_else(|| {
            check::bad_text(
                "moments",
                &format!("{shape:?} of {low:e}..={high:e}"),
                "a range of finite numbers",
            )
        })
    }
}
