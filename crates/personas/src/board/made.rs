//! The section for those who ask how it was made.

use serde::Serialize;

use crate::{Evidence, FeatureEvidence, MINIMUM_CELL, format};

/// Features listed with their transform and counts.
const MAX_FEATURES: usize = 40;

/// Hexadecimal digits of the model hash that people compare.
const HASH_DIGITS: usize = 16;

#[derive(Serialize)]
pub(super) struct Made<'a> {
    sources: &'a [String],
    dropped: Vec<String>,
    features: Vec<Feature<'a>>,
    n_more_features: usize,
    candidates: Vec<Candidate>,
    k_reason: &'a str,
    k_provisional: bool,
    facts: Vec<Fact>,
    model_hash_short: String,
    warnings: &'a [String],
    minimum_cell: u64,
    several: bool,
}

#[derive(Serialize)]
struct Feature<'a> {
    label: &'a str,
    name: &'a str,
    description: &'a str,
    transform: &'a str,
    imputed: String,
    clipped: String,
}

#[derive(Serialize)]
struct Candidate {
    n_clusters: u32,
    inertia: String,
    calinski_harabasz: String,
    smallest_share: String,
    chosen: bool,
}

#[derive(Serialize)]
struct Fact {
    label: &'static str,
    value: String,
    code: bool,
}

pub(super) fn made(evidence: &Evidence) -> Made<'_> {
    let run = &evidence.run;
    let candidate = |candidate: &crate::CandidateFacts| Candidate {
        n_clusters: candidate.n_clusters,
        inertia: format::significant(candidate.inertia),
        calinski_harabasz: candidate
            .calinski_harabasz
            .map_or_else(|| "\u{2013}".to_owned(), format::significant),
        smallest_share: format::percent(candidate.smallest_share),
        chosen: candidate.chosen,
    };
    Made {
        sources: &run.sources,
        dropped: run
            .dropped
            .iter()
            .map(|dropped| format!("{} {}", counted(dropped.count), dropped.what))
            .collect(),
        features: evidence
            .features
            .iter()
            .take(MAX_FEATURES)
            .map(feature)
            .collect(),
        n_more_features: evidence.features.len().saturating_sub(MAX_FEATURES),
        candidates: run.candidates.iter().map(candidate).collect(),
        k_reason: &run.k_reason,
        k_provisional: run.k_provisional,
        facts: facts(evidence),
        model_hash_short: run.model_hash.chars().take(HASH_DIGITS).collect(),
        warnings: &run.warnings,
        minimum_cell: MINIMUM_CELL,
        several: evidence.clusters.len() > 1,
    }
}

fn feature(feature: &FeatureEvidence) -> Feature<'_> {
    Feature {
        label: feature.info.label(),
        name: &feature.info.name,
        description: &feature.info.description,
        transform: &feature.transform,
        imputed: counted(feature.n_imputed),
        clipped: counted(feature.n_clipped),
    }
}

fn facts(evidence: &Evidence) -> Vec<Fact> {
    let run = &evidence.run;
    let fact = |label: &'static str, value: String, code: bool| {
        (!value.is_empty()).then_some(Fact { label, value, code })
    };
    let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    let stop = run.stop_reason.replace('_', " ");
    [
        fact(
            "Customers clustered",
            format::count(evidence.n_customers),
            false,
        ),
        fact("Features", evidence.features.len().to_string(), false),
        fact("Seed", number(run.seed), false),
        fact(
            "Rounds until it stopped",
            number(run.n_iter.map(u64::from)),
            false,
        ),
        fact("Stopped by", stop, false),
        fact("Arithmetic", run.algorithm_version.clone(), true),
        fact("Model hash", run.model_hash.clone(), true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A count, with the minimum cell respected.
fn counted(n: u64) -> String {
    if (1..MINIMUM_CELL).contains(&n) {
        format!("fewer than {MINIMUM_CELL}")
    } else {
        format::count(n)
    }
}
