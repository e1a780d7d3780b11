//! Fetching what the device has found: the rows it was not sure of, now and then, and everything at the end.

use std::collections::{BTreeMap, VecDeque};

use clientele_kmeans::BackendError;

use crate::candidate::Packed;
use crate::passes::{OpenPass, Passes, Place};
use crate::pipeline::plan::{Group, HEADER_WORDS, entry_words};
use crate::pipeline::transfer::Region;
use crate::settle::Settled;

/// Words of the list that come back with the sums; more take a second trip.
const WORDS_AT_ONCE: usize = 1 << 16;

/// For each batch its first candidate, and the words of its list.
pub(crate) type Lists = Vec<(usize, Vec<u32>)>;

/// What a pass came to, before the last uncertain rows are settled.
pub(crate) struct Outcome {
    /// One a candidate.
    pub answers: Vec<Answer>,
    /// The last uncertain rows.
    pub entries: Lists,
    /// What was fetched before.
    pub settled: Settled,
    pub candidates: Vec<clientele_kmeans::Centroids>,
    pub packed: Vec<Packed>,
}

/// What the device says about one candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// For each distinct cluster [n_features] sums of its certain rows, and their number.
    pub cells: Vec<i64>,
    /// [n_rows], right for the certain ones; empty when not asked for.
    pub labels: Vec<u32>,
}

impl Answer {
    /// Adds the sums of other rows.
    fn add(&mut self, other: &Self) {
        for (own, other) in self.cells.iter_mut().zip(&other.cells) {
            *own = own.wrapping_add(*other);
        }
    }
}

/// Groups that found no room in a list.
struct Rejected {
    batch_idx: usize,
    candidate_idx: usize,
    place: Place,
    groups: Vec<Group>,
}

impl Passes {
    /// Everything the pass has found. It is closed, whatever happens.
    pub fn finish(&mut self, pass: u64, serials: &[u64]) -> Result<Outcome, BackendError> {
        self.run_resident(pass, serials);
        self.run_postponed(pass);
        self.gpu.lose_device_if_due();
        // A pass that fails has left its memory half changed.
        let mut pass = self.take(pass).inspect_err(|_| self.memory.forget())?;
        let gpu = self.gpu.clone();
        let outcome = gpu.guarded(|| self.collect(&mut pass));
        match &outcome {
            Ok(_) => self.memory.note(&pass.effort),
            Err(_) => self.memory.forget(),
        }
        let outcome = outcome.map(|(answers, entries)| Outcome {
            answers,
            entries,
            settled: std::mem::take(&mut pass.settled),
            candidates: std::mem::take(&mut pass.opening.candidates),
            packed: std::mem::take(&mut pass.opening.packed),
        });
        self.release(pass);
        outcome
    }

    /// Settles the rows in the lists, empties these, and goes over rejected groups again until there is none.
    pub(super) fn drain(&mut self, pass: &mut OpenPass) -> Result<(), BackendError> {
        let mut rejected: VecDeque<Rejected> = VecDeque::new();
        loop {
            rejected.extend(self.empty_lists(pass)?);
            if rejected.is_empty() {
                return Ok(());
            }
            while let Some(next) = rejected.pop_front() {
                if pass.placed.len() + next.groups.len() > pass.capacity()
                    && !pass.placed.is_empty()
                {
                    rejected.push_front(next);
                    break;
                }
                let placed = self.place(pass, next.place, &next.groups);
                let batch = &pass.batches[next.batch_idx];
                let candidates = next.candidate_idx..next.candidate_idx + 1;
                self.meet(pass, batch, next.place, placed, candidates)?;
            }
        }
    }

    fn empty_lists(&mut self, pass: &mut OpenPass) -> Result<Vec<Rejected>, BackendError> {
        let n_features = pass.opening.n_features;
        let mut rejected = Vec::new();
        for (batch_idx, batch) in pass.batches.iter().enumerate() {
            let n_words = HEADER_WORDS + batch.plan.rejection_words * pass.placed.len();
            let head = Region::words(&batch.totals, 0..n_words);
            let head = self.download.read(&self.gpu, &[head])?.swap_remove(0);
            let n_written = self.check_head(&head, batch.plan.n_entries)?;
            pass.effort.add_head(&head);
            let entries = Region::words(&batch.list, 0..n_written * entry_words(n_features));
            let entries = self.download.read(&self.gpu, &[entries])?.swap_remove(0);
            let first = batch.plan.candidates.start;
            pass.settled
                .add(
                    &entries,
                    first,
                    &pass.opening.candidates,
                    pass.opening.label_rows,
                )
                .map_err(|nonsense| self.gpu.give_up(&nonsense))?;
            if head[2] > 0 {
                let bits = head[HEADER_WORDS..].chunks_exact(batch.plan.rejection_words);
                rejected.extend(rejections(batch_idx, bits, &pass.placed));
            }
            batch.clear_list(&self.gpu)?;
        }
        pass.placed.clear();
        Ok(rejected)
    }

    fn collect(&mut self, pass: &mut OpenPass) -> Result<(Vec<Answer>, Lists), BackendError> {
        loop {
            let (mut answers, mut entries, mut is_rejected) = (Vec::new(), Vec::new(), false);
            let mut effort = pass.effort;
            let gathered = self.gather(pass)?;
            for batch in &pass.batches {
                let (plan, n_features) = (&batch.plan, pass.opening.n_features);
                let entry_words = entry_words(n_features);
                let n_at_once = (plan.n_entries * entry_words).min(WORDS_AT_ONCE);
                let cells = plan.first_cell_word()..plan.first_cell_word() + 2 * plan.n_cells;
                let n_labels = pass.opening.label_rows.unwrap_or(0) * plan.candidates.len();
                let mut regions = vec![
                    Region::words(&batch.totals, 0..HEADER_WORDS),
                    Region::words(&batch.totals, cells),
                    Region::words(&batch.list, 0..n_at_once),
                ];
                regions.extend(
                    gathered
                        .as_ref()
                        .map(|gathered| Region::words(gathered, 0..2 * plan.n_cells)),
                );
                regions.extend(
                    batch
                        .labels
                        .as_ref()
                        .map(|labels| Region::words(labels, 0..n_labels)),
                );
                let mut read = self.download.read(&self.gpu, &regions)?;
                let labels = batch.labels.as_ref().and_then(|_| read.pop());
                let remembered = gathered.as_ref().and_then(|_| read.pop());
                let (mut list, cells, head) = (
                    read.swap_remove(2),
                    read.swap_remove(1),
                    read.swap_remove(0),
                );
                effort.add_head(&head);
                is_rejected |= head[2] > 0;
                let n_words = self.check_head(&head, plan.n_entries)? * entry_words;
                if n_words > list.len() {
                    let rest = Region::words(&batch.list, list.len()..n_words);
                    list.extend(self.download.read(&self.gpu, &[rest])?.swap_remove(0));
                }
                list.truncate(n_words);
                entries.push((plan.candidates.start, list));
                let packed = &pass.opening.packed[plan.candidates.clone()];
                let first = answers.len();
                answers.extend(split(packed, n_features, &cells, labels.as_deref()));
                if let Some(remembered) = remembered {
                    let remembered = split(packed, n_features, &remembered, None);
                    for (answer, remembered) in answers[first..].iter_mut().zip(remembered) {
                        answer.add(&remembered);
                    }
                }
            }
            if let Some(gathered) = gathered {
                self.pool.put(gathered);
            }
            if !is_rejected {
                pass.effort = effort;
                return Ok((answers, entries));
            }
            self.drain(pass)?;
        }
    }

    /// Entries in the list. A device that is broken rather than lost must not bring the process down.
    fn check_head(&self, head: &[u32], n_entries: usize) -> Result<usize, BackendError> {
        let n_written = head[1] as usize;
        if n_written > n_entries {
            let nonsense = format!("{n_written} uncertain rows in a list of {n_entries}");
            return Err(self.gpu.give_up(&nonsense));
        }
        Ok(n_written)
    }
}

/// The rejected groups of each candidate of a batch. `bits`: for each group placed, a bit a candidate.
fn rejections<'a>(
    batch_idx: usize,
    bits: impl Iterator<Item = &'a [u32]>,
    placed: &[(Place, Group)],
) -> Vec<Rejected> {
    let mut found: BTreeMap<(usize, Place), Vec<Group>> = BTreeMap::new();
    for (words, (place, group)) in bits.zip(placed) {
        for (word_idx, word) in words.iter().enumerate() {
            for bit in (0..32).filter(|bit| word >> bit & 1 == 1) {
                found
                    .entry((word_idx * 32 + bit, *place))
                    .or_default()
                    .push(*group);
            }
        }
    }
    let rejected = |((candidate_idx, place), groups)| Rejected {
        batch_idx,
        candidate_idx,
        place,
        groups,
    };
    found.into_iter().map(rejected).collect()
}

/// Cuts the buffers of a batch into one answer a candidate.
fn split(
    packed: &[Packed],
    n_features: usize,
    cells: &[u32],
    labels: Option<&[u32]>,
) -> Vec<Answer> {
    let mut cells = cells
        .as_chunks()
        .0
        .iter()
        .map(|[low, high]: &[u32; 2]| (u64::from(*high) << 32 | u64::from(*low)).cast_signed());
    let n_label_rows = labels.map_or(0, |labels| labels.len() / packed.len().max(1));
    packed
        .iter()
        .enumerate()
        .map(|(idx, packed)| Answer {
            cells: cells
                .by_ref()
                .take(packed.for_device.n_clusters * (n_features + 1))
                .collect(),
            labels: labels.map_or_else(Vec::new, |labels| {
                labels[idx * n_label_rows..][..n_label_rows].to_vec()
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clientele_kmeans::Centroids;

    use super::*;

    #[test]
    fn halves_of_negative_sums_go_together() {
        let packed = [
            Packed::from(&Centroids::new(1, vec![5])),
            Packed::from(&Centroids::new(1, vec![5, 7])),
        ];
        let cells: Vec<u32> = [-3i64, 7, 1 << 40, 9, -1, 0]
            .iter()
            .flat_map(|&cell| [cell as u32, (cell >> 32) as u32])
            .collect();
        let answers = split(&packed, 1, &cells, Some(&[0, 0, 1, 0]));
        assert_eq!(
            answers[0],
            Answer {
                cells: vec![-3, 7],
                labels: vec![0, 0]
            }
        );
        assert_eq!(
            answers[1],
            Answer {
                cells: vec![1 << 40, 9, -1, 0],
                labels: vec![1, 0]
            }
        );
    }

    #[test]
    fn every_rejected_pair_is_done_again() {
        let group = |first_row| Group {
            first_vector: 0,
            first_norm: 0,
            n_rows: 1,
            first_row,
        };
        let placed = [
            (Place::Slot(0), group(0)),
            (Place::Arena(4), group(1)),
            (Place::Slot(0), group(2)),
        ];
        let bits = [0b100, 1, 0, 0, 0b101, 0];
        let found: Vec<_> = rejections(7, bits.chunks_exact(2), &placed)
            .into_iter()
            .map(|r| {
                (
                    r.candidate_idx,
                    r.place,
                    r.groups.iter().map(|g| g.first_row).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (0, Place::Slot(0), vec![2]),
                (2, Place::Slot(0), vec![0, 2]),
                (32, Place::Slot(0), vec![0]),
            ]
        );
    }
}
