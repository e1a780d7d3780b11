//! What sets a group apart: standardised differences from everyone, in words.

use serde::Serialize;

use crate::{Basis, Distribution, Evidence, FeatureInfo, MINIMUM_CELL, Unit, format};

/// Standard deviations from everyone's mean from which a difference is a trait (a "medium" effect, Cohen 1988).
pub const TRAIT_THRESHOLD: f64 = 0.5;

/// From here a trait is strong ("large", Cohen 1988).
const STRONG: f64 = 0.8;

/// From here a trait is very strong ("very large", Sawilowsky 2009).
const VERY_STRONG: f64 = 1.2;

/// One feature in which a group differs from everyone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trait {
    /// Column name.
    pub feature: String,
    /// Label for people.
    pub label: String,
    /// Whether the group is above or below everyone.
    pub direction: Direction,
    /// How far, in words.
    pub strength: Strength,
    /// How far, in standard deviations of everyone, clustered units.
    pub mean_z: f64,
    /// The trait as a sentence.
    pub text: String,
    /// Median of the group, raw units.
    pub typical: f64,
    /// Median of everyone, raw units.
    pub everyone: f64,
    /// Where it comes from.
    pub basis: Basis,
}

/// Above or below everyone's mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Above.
    Higher,
    /// Below.
    Lower,
}

/// Size of a standardised difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// At least [`TRAIT_THRESHOLD`].
    Moderate,
    /// At least 0.8.
    Strong,
    /// At least 1.2.
    VeryStrong,
}

impl Direction {
    pub(crate) fn of(mean_z: f64) -> Self {
        if mean_z < 0.0 {
            Self::Lower
        } else {
            Self::Higher
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

impl Strength {
    /// Strength of a difference; none below [`TRAIT_THRESHOLD`].
    pub fn of(mean_z: f64) -> Option<Self> {
        match mean_z.abs() {
            size if size >= VERY_STRONG => Some(Self::VeryStrong),
            size if size >= STRONG => Some(Self::Strong),
            size if size >= TRAIT_THRESHOLD => Some(Self::Moderate),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Moderate => "somewhat",
            Self::Strong => "clearly",
            Self::VeryStrong => "far",
        }
    }
}

impl Trait {
    /// "far higher", "somewhat lower".
    pub fn comparison(&self) -> String {
        format!("{} {}", self.strength.word(), self.direction.word())
    }
}

/// Positions in `evidence.features` by how far cluster `cluster_idx` is from everyone, farthest first; ties in model order.
/// Only features known for [`MINIMUM_CELL`] customers of the group.
pub(crate) fn by_distance(evidence: &Evidence, cluster_idx: usize) -> Vec<usize> {
    let group = |feature_idx: usize| &evidence.features[feature_idx].clusters[cluster_idx];
    let mut order: Vec<usize> = (0..evidence.features.len())
        .filter(|&idx| group(idx).n >= MINIMUM_CELL)
        .collect();
    order.sort_by(|&a, &b| group(b).mean_z.abs().total_cmp(&group(a).mean_z.abs()));
    order
}

/// The traits of a cluster, strongest first.
pub(crate) fn traits(evidence: &Evidence, cluster_idx: usize) -> Vec<Trait> {
    let describe = |feature_idx: usize| {
        let feature = &evidence.features[feature_idx];
        describe(
            &feature.info,
            &feature.clusters[cluster_idx],
            &feature.overall,
            &evidence.currency,
        )
    };
    by_distance(evidence, cluster_idx)
        .into_iter()
        .filter_map(describe)
        .collect()
}

fn describe(
    info: &FeatureInfo,
    group: &Distribution,
    everyone: &Distribution,
    currency: &str,
) -> Option<Trait> {
    let strength = Strength::of(group.mean_z)?;
    let direction = Direction::of(group.mean_z);
    let here = format::value(group.median, info.unit, currency);
    let overall = format::value(everyone.median, info.unit, currency);
    let label = info.label();
    let text = if here == overall {
        format!(
            "{label}: typically {here}, as for everyone, but {} on average",
            direction.word()
        )
    } else {
        format!("{label}: typically {here}, against {overall} for everyone")
    };
    Some(Trait {
        feature: info.name.clone(),
        label: label.to_owned(),
        direction,
        strength,
        mean_z: group.mean_z,
        text,
        typical: group.median,
        everyone: everyone.median,
        basis: Basis::Measured,
    })
}

/// Whether at least three quarters of the group have exactly one.
pub(crate) fn is_one(info: &FeatureInfo, group: &Distribution) -> bool {
    // Written as two comparisons so that it reads as what it is: quartiles of whole numbers.
    info.unit == Unit::Count && group.q25 >= 1.0 && group.q75 <= 1.0
}
