//! Transforms, which stages name by hash.

use clientele_data::transform::{FeatureTransform, Transform};
use clientele_kmeans::GRID_LIMIT;

use crate::{WireError, check};

pub(crate) fn encode(transform: &Transform) -> Vec<u8> {
    serde_json::to_vec(transform).expect("a transform is numbers and texts")
}

/// Refuses what would put a value off the grid, and what is written otherwise than we write it: its hash would name another.
pub(crate) fn decode(json: &[u8]) -> Result<Transform, WireError> {
    let refused = |reason: String| WireError::Transform {
        n_bytes: json.len(),
        reason,
    };
    let transform: Transform =
        serde_json::from_slice(json).map_err(|error| refused(error.to_string()))?;
    check::within("n_features", transform.n_features() as u64, check::FEATURES)?;
    let step = transform.grid_step();
    if !(step.is_normal() && step.recip().is_normal()) {
        return Err(refused(format!("grid step {step:e}")));
    }
    if let Some(feature_idx) =
        (0..transform.n_features()).find(|feature_idx| !is_sound(&transform, *feature_idx))
    {
        return Err(refused(format!("feature {feature_idx} leaves the grid")));
    }
    // Only what we write has the hash that we know it by.
    match encode(&transform) == json {
        true => Ok(transform),
        false => Err(refused(
            "its JSON is not in the one form that is hashed".into(),
        )),
    }
}

/// Whether all values of a feature end on the grid: its range does, and what lies between follows the order.
fn is_sound(transform: &Transform, feature_idx: usize) -> bool {
    let feature = &transform.features()[feature_idx];
    let FeatureTransform {
        clip_low,
        clip_high,
        mean,
        sd,
        offset,
        ..
    } = *feature;
    let numbers = [clip_low, clip_high, mean, sd, offset];
    if !(numbers.iter().all(|x| x.is_finite()) && clip_low <= clip_high && sd >= 0.0) {
        return false;
    }
    let ends = [clip_low, clip_high].map(|x| feature.to_clustered(x) - offset);
    let (low, high) = transform.grid_range(feature_idx);
    ends.iter().all(|x| x.is_finite())
        && [low, high]
            .iter()
            .all(|q| (1 - GRID_LIMIT..GRID_LIMIT).contains(q))
        && feature.impute.is_none_or(f64::is_finite)
}
