//! From a finished fit to the evidence that personas are described from.

use clientele_coordinator::fit::Fitted;
use clientele_coordinator::model::{CandidateSummary, Model};
use clientele_data::transform::{Shape, Transform, TransformKind};
use clientele_features::FeatureEntry;
use clientele_kmeans::lloyd::StopReason;
use clientele_personas::{
    Amount, CandidateFacts, ClusterEvidence, Counted, Distribution, Evidence, FeatureEvidence,
    FeatureInfo, RunFacts, Unit, ValueInfo,
};
use clientele_protocol::{FeatureHistogram, MARGIN_BINS};
use serde::{Deserialize, Serialize};

/// Bins of a chart.
const CHART_BINS: usize = 32;

/// What a person has said about the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Story {
    /// Heading of the board.
    pub title: String,
    /// Sign before money.
    pub currency: String,
    /// Words for the features, by column name.
    pub dictionary: Vec<FeatureEntry>,
    /// Column that says what a customer is worth.
    pub value: Option<FeatureEntry>,
    /// Where the rows come from, a line each.
    pub sources: Vec<String>,
    /// What was left out before clustering.
    pub dropped: Vec<Counted>,
}

/// Puts together what `fitted` counted and what `story` calls it.
pub fn evidence(fitted: &Fitted, model: &Model, story: &Story) -> Evidence {
    let value = story
        .value
        .as_ref()
        .filter(|_| !fitted.labels.values.is_empty());
    Evidence {
        title: story.title.clone(),
        n_customers: fitted.totals.n_rows,
        currency: story.currency.clone(),
        value: value.map(|entry| ValueInfo {
            name: entry.name.clone(),
            label: entry.label.clone(),
            unit: unit(entry.unit),
        }),
        features: (0..model.meaning.features.len())
            .map(|idx| feature(fitted, model, story, idx))
            .collect(),
        clusters: (0..model.meaning.n_clusters)
            .map(|idx| cluster(fitted, idx, value.is_some()))
            .collect(),
        run: run_facts(fitted, model, story),
    }
}

fn feature(fitted: &Fitted, model: &Model, story: &Story, feature_idx: usize) -> FeatureEvidence {
    let name = &model.meaning.features[feature_idx];
    let n_clusters = model.meaning.n_clusters;
    let transform = &fitted.transform;
    let (low, high) = transform.grid_range(feature_idx);
    let varies = low < high;
    let everyone = fitted.labels.histograms.feature(0..n_clusters, feature_idx);
    let n_bins = if varies {
        CHART_BINS.min(everyone.counts.len())
    } else {
        0
    };
    let edge = |nth: usize| {
        let q = f64::from(low) + (f64::from(high) - f64::from(low)) * nth as f64 / n_bins as f64;
        transform.from_grid(feature_idx, q)
    };
    let mean = fitted.totals.sums[feature_idx] as f64 / fitted.totals.n_rows as f64;
    let sd = fitted.ingest.sd_steps(feature_idx);
    let distribution = |histogram: &FeatureHistogram, mean_here: f64| {
        let at = |p| {
            histogram
                .quantile(p)
                .map_or(0.0, |q| transform.from_grid(feature_idx, q))
        };
        Distribution {
            n: histogram.counts.iter().sum(),
            q25: at(0.25),
            median: at(0.5),
            q75: at(0.75),
            mean_z: if sd > 0.0 {
                (mean_here - mean) / sd
            } else {
                0.0
            },
            histogram: coarser(&histogram.counts, n_bins),
        }
    };
    FeatureEvidence {
        info: feature_info(story, name),
        transform: transform_in_words(transform, feature_idx),
        edges: if varies {
            (0..=n_bins).map(edge).collect()
        } else {
            Vec::new()
        },
        n_imputed: fitted.ingest.imputed[feature_idx],
        n_clipped: fitted.ingest.clipped_low[feature_idx] + fitted.ingest.clipped_high[feature_idx],
        overall: distribution(&everyone, mean),
        clusters: (0..n_clusters)
            .map(|idx| {
                let here = fitted.labels.histograms.feature(idx..idx + 1, feature_idx);
                let sum: i64 = here.sums.iter().sum();
                let n: u64 = here.counts.iter().sum();
                distribution(&here, if n > 0 { sum as f64 / n as f64 } else { mean })
            })
            .collect(),
    }
}

/// What happened to a feature before clustering.
fn transform_in_words(transform: &Transform, feature_idx: usize) -> String {
    let shape = match transform.features()[feature_idx].kind {
        Shape::Identity => None,
        Shape::Log1p => Some("logarithm of 1 + x"),
    };
    let scale = match transform.kind() {
        TransformKind::Auto => "clipped at 0.5 % and 99.5 %, z-score",
        TransformKind::Zscore => "z-score",
        TransformKind::None => "as it is",
    };
    shape
        .into_iter()
        .chain([scale])
        .collect::<Vec<_>>()
        .join(", ")
}

/// Adds neighbouring bins up to `n_bins`.
fn coarser(counts: &[u64], n_bins: usize) -> Vec<u64> {
    let mut bins = vec![0; n_bins];
    if n_bins > 0 {
        for (at, count) in counts.iter().enumerate() {
            bins[at * n_bins / counts.len()] += count;
        }
    }
    bins
}

fn feature_info(story: &Story, name: &str) -> FeatureInfo {
    let known = story.dictionary.iter().find(|entry| entry.name == name);
    FeatureInfo {
        name: name.to_owned(),
        label: known.map(|entry| entry.label.clone()).unwrap_or_default(),
        unit: known.map_or(Unit::Number, |entry| unit(entry.unit)),
        high_word: known.map(|entry| entry.high_word.clone()),
        low_word: known.map(|entry| entry.low_word.clone()),
        one_word: known.and_then(|entry| entry.one_word.clone()),
        description: known
            .map(|entry| entry.description.clone())
            .unwrap_or_default(),
    }
}

fn unit(unit: clientele_features::Unit) -> Unit {
    match unit {
        clientele_features::Unit::Days => Unit::Days,
        clientele_features::Unit::Count => Unit::Count,
        clientele_features::Unit::Money => Unit::Money,
        clientele_features::Unit::Share => Unit::Share,
        clientele_features::Unit::Number => Unit::Number,
    }
}

fn cluster(fitted: &Fitted, cluster_idx: usize, has_value: bool) -> ClusterEvidence {
    let labels = &fitted.labels;
    let n_clusters = labels.sizes.len();
    let is_alone = n_clusters == 1;
    let row = |table: &[u64], width: usize| {
        if is_alone {
            Vec::new()
        } else {
            table[cluster_idx * width..][..width].to_vec()
        }
    };
    ClusterEvidence {
        size: labels.sizes[cluster_idx],
        value_total: has_value.then(|| Amount::from_ten_thousandths(labels.values[cluster_idx])),
        second_choice: row(&labels.seconds, n_clusters),
        margin_histogram: row(&labels.margins, MARGIN_BINS),
        given_name: None,
        notes: Vec::new(),
    }
}

fn run_facts(fitted: &Fitted, model: &Model, story: &Story) -> RunFacts {
    let meaning = &model.meaning;
    let mut dropped = story.dropped.clone();
    if fitted.ingest.n_dropped > 0 {
        dropped.push(Counted {
            what: "rows without a value in some feature".into(),
            count: fitted.ingest.n_dropped,
        });
    }
    RunFacts {
        sources: story.sources.clone(),
        dropped,
        model_hash: model.model_hash.clone(),
        algorithm_version: meaning.algorithm_version.clone(),
        seed: Some(meaning.seed),
        n_iter: Some(meaning.n_iter),
        stop_reason: match meaning.stop_reason {
            StopReason::Converged => "fixed_point",
            StopReason::Tolerance => "tolerance",
            StopReason::MaxIter => "max_iter",
            StopReason::GivenUp => "given_up",
        }
        .into(),
        k_reason: k_reason(fitted),
        k_provisional: n_numbers(&fitted.candidates) > 1,
        candidates: candidates(fitted),
        warnings: fitted.warnings.clone(),
    }
}

fn n_numbers(candidates: &[CandidateSummary]) -> usize {
    let mut numbers: Vec<usize> = candidates.iter().map(|c| c.n_clusters).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len()
}

fn k_reason(fitted: &Fitted) -> String {
    let chosen = &fitted.candidates[fitted.chosen_idx];
    let k = chosen.n_clusters;
    if n_numbers(&fitted.candidates) == 1 {
        return format!("{k} personas were asked for");
    }
    let (low, high) = fitted
        .candidates
        .iter()
        .fold((usize::MAX, 0), |(low, high), c| {
            (low.min(c.n_clusters), high.max(c.n_clusters))
        });
    let is_balanced = u128::from(chosen.smallest_size) * 20 >= u128::from(fitted.totals.n_rows);
    if is_balanced {
        format!(
            "of {low} to {high} personas, {k} separates the groups best (Calinski-Harabasz) among those that leave every group at least 5 % of the customers"
        )
    } else {
        format!(
            "of {low} to {high} personas, {k} leaves the smallest group largest; none leaves every group 5 % of the customers"
        )
    }
}

/// The best restart of each number of clusters, and the chosen one among them.
fn candidates(fitted: &Fitted) -> Vec<CandidateFacts> {
    let n_rows = fitted.totals.n_rows as f64;
    let mut best: Vec<(usize, &CandidateSummary)> = Vec::new();
    let finished = fitted.candidates.iter().enumerate();
    for (idx, candidate) in finished.filter(|(_, candidate)| candidate.given_up.is_none()) {
        match best
            .iter_mut()
            .find(|(_, held)| held.n_clusters == candidate.n_clusters)
        {
            Some(held) if candidate.inertia_grid < held.1.inertia_grid => *held = (idx, candidate),
            Some(_) => {}
            None => best.push((idx, candidate)),
        }
    }
    best.into_iter()
        .map(|(idx, candidate)| CandidateFacts {
            n_clusters: u32::try_from(candidate.n_clusters).unwrap_or(u32::MAX),
            inertia: candidate.inertia,
            calinski_harabasz: candidate
                .calinski_harabasz
                .filter(|value| value.is_finite()),
            smallest_share: candidate.smallest_size as f64 / n_rows,
            chosen: idx == fitted.chosen_idx,
        })
        .collect()
}
