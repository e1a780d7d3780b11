//! From what the device said to partials: rows it was not sure of are settled here, in exact integers.

use clientele_kmeans::{Block, BlockLabels, Centroids, Partial, exact};

use crate::candidate::Packed;
use crate::pipeline::answer::Answer;

/// One partial a candidate. `answers` as the device gave them, one a candidate; `labels` as in [`clientele_kmeans::Backend`].
pub(crate) fn finish(
    block: &Block,
    candidates: &[Centroids],
    packed: &[Packed],
    answers: Vec<Answer>,
    mut labels: Option<&mut BlockLabels>,
) -> Vec<Partial> {
    if let Some(labels) = labels.as_deref_mut() {
        labels.by_candidate.resize(candidates.len(), Vec::new());
    }
    let mut partials = Vec::with_capacity(candidates.len());
    for (candidate_idx, answer) in answers.into_iter().enumerate() {
        let (centroids, packed) = (&candidates[candidate_idx], &packed[candidate_idx]);
        let mut partial = expand(&answer, packed, centroids);
        let settled = settle(block, centroids, &answer.uncertain);
        add_settled(&mut partial, block, &settled);
        if let Some(labels) = labels.as_deref_mut() {
            let new = final_labels(answer.labels, packed, &settled);
            partial.n_moved = Some(count_moved(&labels.by_candidate[candidate_idx], &new));
            labels.by_candidate[candidate_idx] = new;
        }
        partials.push(partial);
    }
    partials
}

/// Puts the sums of distinct centroids where the candidate has them.
fn expand(answer: &Answer, packed: &Packed, centroids: &Centroids) -> Partial {
    let n_features = centroids.n_features();
    let mut partial = Partial::zero(centroids.n_clusters(), n_features);
    partial.n_moved = None;
    partial.n_rechecked = answer.uncertain.len() as u64;
    for (distinct_idx, &original_idx) in packed.original_idx.iter().enumerate() {
        let original_idx = usize::from(original_idx);
        partial.counts[original_idx] = u64::from(answer.counts[distinct_idx]);
        partial.sums[original_idx * n_features..][..n_features]
            .copy_from_slice(&answer.sums[distinct_idx * n_features..][..n_features]);
    }
    partial
}

/// The exact label of each of `rows`.
fn settle(block: &Block, centroids: &Centroids, rows: &[u16]) -> Vec<(usize, u16)> {
    let mut row = vec![0; block.n_features()];
    rows.iter()
        .map(|&row_idx| {
            let row_idx = usize::from(row_idx);
            block.read_row(row_idx, &mut row);
            (row_idx, exact::nearest(&row, centroids).0)
        })
        .collect()
}

fn add_settled(partial: &mut Partial, block: &Block, settled: &[(usize, u16)]) {
    let n_features = block.n_features();
    for &(row_idx, label) in settled {
        let cluster_idx = usize::from(label);
        partial.counts[cluster_idx] += 1;
        let sums = &mut partial.sums[cluster_idx * n_features..][..n_features];
        for (feature_idx, sum) in sums.iter_mut().enumerate() {
            *sum += i64::from(block.value(row_idx, feature_idx));
        }
    }
}

/// `labels` [n_rows] of distinct centroids becomes [n_rows] of the candidate's own.
fn final_labels(mut labels: Vec<u16>, packed: &Packed, settled: &[(usize, u16)]) -> Vec<u16> {
    for label in &mut labels {
        *label = packed.original_idx[usize::from(*label)];
    }
    for &(row_idx, label) in settled {
        labels[row_idx] = label;
    }
    labels
}

/// Without labels from a pass before, every row counts as moved.
fn count_moved(old: &[u16], new: &[u16]) -> u64 {
    if old.len() != new.len() {
        return new.len() as u64;
    }
    old.iter().zip(new).filter(|(old, new)| old != new).count() as u64
}
