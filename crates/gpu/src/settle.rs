//! From what the device said to partials: rows it was not sure of are settled here, in exact integers.

use clientele_kmeans::{BackendError, BlockLabels, Centroids, GRID_LIMIT, Partial, exact};

use crate::candidate::Packed;
use crate::drain::{Answer, Outcome};
use crate::pipeline::plan::entry_words;

/// Uncertain rows that have been settled.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// One a candidate; `n_moved` means nothing.
    partials: Vec<Partial>,
    /// For each candidate row and label, when labels are wanted.
    labels: Vec<Vec<(u32, u16)>>,
}

impl Settled {
    /// None yet.
    pub fn new(candidates: &[Centroids]) -> Self {
        let zero = |c: &Centroids| Partial::zero(c.n_clusters(), c.n_features());
        Self {
            partials: candidates.iter().map(zero).collect(),
            labels: vec![Vec::new(); candidates.len()],
        }
    }

    /// Settles the entries of a list whose candidates are counted from `first_candidate`. `label_rows`: rows there are, if labels are
    /// wanted. The error is what is wrong with an entry: a broken device must not bring the process down.
    pub fn add(
        &mut self,
        entries: &[u32],
        first_candidate: usize,
        candidates: &[Centroids],
        label_rows: Option<usize>,
    ) -> Result<(), String> {
        let Some(n_features) = candidates.first().map(Centroids::n_features) else {
            return Ok(());
        };
        let mut row = vec![0; n_features];
        for entry in entries.chunks_exact(entry_words(n_features)) {
            let candidate_idx = first_candidate + entry[0] as usize;
            let centroids = candidates
                .get(candidate_idx)
                .ok_or_else(|| format!("an uncertain row of candidate {}", entry[0]))?;
            for (value, &bits) in row.iter_mut().zip(&entry[2..]) {
                *value = f32::from_bits(bits) as i32;
                if value.abs() >= GRID_LIMIT {
                    return Err(format!("an uncertain row with {value}, off the grid"));
                }
            }
            let (label, _) = exact::nearest(&row, centroids);
            let partial = &mut self.partials[candidate_idx];
            let cluster_idx = usize::from(label);
            partial.n_rechecked += 1;
            partial.counts[cluster_idx] += 1;
            let sums = &mut partial.sums[cluster_idx * n_features..][..n_features];
            sums.iter_mut()
                .zip(&row)
                .for_each(|(sum, &value)| *sum += i64::from(value));
            if let Some(n_rows) = label_rows {
                if entry[1] as usize >= n_rows {
                    return Err(format!("uncertain row {} of {n_rows}", entry[1]));
                }
                self.labels[candidate_idx].push((entry[1], label));
            }
        }
        Ok(())
    }
}

/// One partial a candidate, over `n_rows` rows. `labels` as in [`clientele_kmeans::Backend`].
pub(crate) fn finish(
    outcome: Outcome,
    n_rows: u64,
    mut labels: Option<&mut BlockLabels>,
) -> Result<Vec<Partial>, BackendError> {
    let Outcome {
        answers,
        entries,
        mut settled,
        candidates,
        packed,
    } = outcome;
    let broken = |reason| BackendError::DeviceLost { reason };
    let label_rows = labels
        .as_ref()
        .map(|_| usize::try_from(n_rows).unwrap_or(usize::MAX));
    for (first_candidate, entries) in &entries {
        settled
            .add(entries, *first_candidate, &candidates, label_rows)
            .map_err(broken)?;
    }
    if let Some(labels) = labels.as_deref_mut() {
        labels.by_candidate.resize(candidates.len(), Vec::new());
    }
    let parts = settled.partials.into_iter().zip(settled.labels);
    let mut partials = Vec::with_capacity(candidates.len());
    for (idx, ((mut partial, settled_labels), answer)) in parts.zip(answers).enumerate() {
        add_certain(
            &mut partial,
            &answer,
            &packed[idx],
            candidates[idx].n_features(),
        );
        partial.n_moved = None;
        if partial.n_rows() != n_rows {
            let n_accounted = partial.n_rows();
            return Err(broken(format!(
                "the device accounted for {n_accounted} rows of {n_rows}"
            )));
        }
        if let Some(labels) = labels.as_deref_mut() {
            let new =
                final_labels(&answer.labels, &packed[idx], &settled_labels).map_err(broken)?;
            partial.n_moved = Some(count_moved(&labels.by_candidate[idx], &new));
            labels.by_candidate[idx] = new;
        }
        partials.push(partial);
    }
    Ok(partials)
}

/// Puts the sums of distinct centroids where the candidate has them.
fn add_certain(partial: &mut Partial, answer: &Answer, packed: &Packed, n_features: usize) {
    let cells = answer.cells.chunks_exact(n_features + 1);
    for (cells, &original_idx) in cells.zip(&packed.original_idx) {
        let original_idx = usize::from(original_idx);
        let (sums, count) = cells.split_at(n_features);
        partial.counts[original_idx] =
            partial.counts[original_idx].wrapping_add(count[0].cast_unsigned());
        let own = &mut partial.sums[original_idx * n_features..][..n_features];
        own.iter_mut()
            .zip(sums)
            .for_each(|(own, sum)| *own = own.wrapping_add(*sum));
    }
}

/// `labels` [n_rows] of distinct centroids becomes [n_rows] of the candidate's own. The error names a label that is none.
fn final_labels(
    labels: &[u32],
    packed: &Packed,
    settled: &[(u32, u16)],
) -> Result<Vec<u16>, String> {
    const NONE: u16 = u16::MAX;
    let original = |&label: &u32| {
        packed
            .original_idx
            .get(label as usize)
            .copied()
            .unwrap_or(NONE)
    };
    let mut labels: Vec<u16> = labels.iter().map(original).collect();
    for &(row_idx, label) in settled {
        labels[row_idx as usize] = label;
    }
    match labels.iter().position(|&label| label == NONE) {
        None => Ok(labels),
        Some(row_idx) => Err(format!(
            "the device gave row {row_idx} a label that is none"
        )),
    }
}

/// Without labels from a pass before, every row counts as moved.
fn count_moved(old: &[u16], new: &[u16]) -> u64 {
    if old.len() != new.len() {
        return new.len() as u64;
    }
    old.iter().zip(new).filter(|(old, new)| old != new).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        // Two features, two clusters, five rows: four certain, one to be settled.
        let candidates = vec![Centroids::new(2, vec![0, 0, 10, 10])];
        let packed: Vec<Packed> = candidates.iter().map(Packed::from).collect();
        Outcome {
            answers: vec![Answer {
                cells: vec![3, 4, 3, 20, 21, 1],
                labels: vec![0, 1, 0, 0, 7],
            }],
            entries: vec![(0, vec![0, 4, 9f32.to_bits(), 8f32.to_bits()])],
            settled: Settled::new(&candidates),
            candidates,
            packed,
        }
    }

    #[test]
    fn certain_and_settled_rows_come_together() {
        let mut labels = BlockLabels::default();
        let partials = finish(outcome(), 5, Some(&mut labels)).unwrap();
        assert_eq!(partials[0].counts, [3, 2]);
        assert_eq!(partials[0].sums, [3, 4, 29, 29]);
        assert_eq!(partials[0].n_rechecked, 1);
        assert_eq!(labels.by_candidate, [[0, 1, 0, 0, 1]]);
    }

    #[test]
    fn a_device_that_talks_nonsense_is_found_out() {
        let spoils: [fn(&mut Outcome); 6] = [
            |o| o.answers[0].cells[2] = 2,
            |o| o.entries.clear(),
            |o| o.entries[0].1[0] = 1,
            |o| o.entries[0].1[1] = 5,
            |o| o.entries[0].1[2] = f32::INFINITY.to_bits(),
            |o| o.answers[0].labels[2] = 2,
        ];
        for spoil in spoils {
            let mut spoilt = outcome();
            spoil(&mut spoilt);
            let answer = finish(spoilt, 5, Some(&mut BlockLabels::default()));
            assert!(
                matches!(answer, Err(BackendError::DeviceLost { .. })),
                "{answer:?}"
            );
        }
    }
}
