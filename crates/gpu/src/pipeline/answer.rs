//! What the device says, cut up and looked through before anything believes it.

use std::sync::Arc;

use super::assign::{Job, QUAD_ROWS};
use crate::candidate::DeviceCandidate;

/// What the device says about one candidate.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// [n_clusters] certain rows.
    pub counts: Vec<u32>,
    /// [n_clusters x n_features] sums of the certain rows.
    pub sums: Vec<i64>,
    /// Rows it was not sure of, in no order.
    pub uncertain: Vec<u16>,
    /// [n_rows], right for the certain ones; empty when not asked for.
    pub labels: Vec<u16>,
}

/// Cuts the buffers of a batch into one answer a candidate, without the uncertain rows.
pub(super) fn split(
    job: &Job,
    candidates: &[Arc<DeviceCandidate>],
    sums: &[u8],
    counts: &[u8],
    labels: &[u8],
) -> Vec<Answer> {
    let mut sums = sums.chunks_exact(8).map(|pair| {
        let (low, high) = pair.split_at(4);
        (u64::from(word(high)) << 32 | u64::from(word(low))).cast_signed()
    });
    let mut counts = counts.chunks_exact(4).map(word);
    let mut labels = labels.chunks_exact(job.label_stride().max(1) * QUAD_ROWS * 2);
    candidates
        .iter()
        .map(|candidate| Answer {
            counts: counts.by_ref().take(candidate.n_clusters).collect(),
            sums: sums
                .by_ref()
                .take(candidate.n_clusters * job.n_features)
                .collect(),
            uncertain: Vec::new(),
            labels: labels.next().map_or_else(Vec::new, |labels| {
                let halves = labels
                    .chunks_exact(4)
                    .map(word)
                    .flat_map(|w| [(w & 0xffff) as u16, (w >> 16) as u16]);
                halves.take(job.n_rows).collect()
            }),
        })
        .collect()
}

/// Gives each candidate its rows of the list; what names no candidate shows up as rows missing in [`check`].
pub(super) fn distribute(answers: &mut [Answer], entries: &[u32]) {
    for entry in entries {
        if let Some(answer) = answers.get_mut((entry >> 16) as usize) {
            answer.uncertain.push((entry & 0xffff) as u16);
        }
    }
}

/// A device that is broken rather than lost must not bring the process down: nothing it says is used as an index unseen.
pub(super) fn check(
    job: &Job,
    candidates: &[Arc<DeviceCandidate>],
    answers: &[Answer],
) -> Result<(), String> {
    for (candidate, answer) in candidates.iter().zip(answers) {
        let n_certain: u64 = answer.counts.iter().map(|&count| u64::from(count)).sum();
        let n_accounted = n_certain + answer.uncertain.len() as u64;
        if n_accounted != job.n_rows as u64 {
            return Err(format!(
                "the device accounted for {n_accounted} rows of {}",
                job.n_rows
            ));
        }
        if let Some(row) = answer
            .uncertain
            .iter()
            .find(|&&r| usize::from(r) >= job.n_rows)
        {
            return Err(format!("the device listed row {row} of {}", job.n_rows));
        }
        let n_clusters = candidate.n_clusters;
        if let Some(label) = answer
            .labels
            .iter()
            .find(|&&l| usize::from(l) >= n_clusters)
        {
            return Err(format!("the device gave label {label} of {n_clusters}"));
        }
    }
    Ok(())
}

pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(word).collect()
}

/// Device memory is little-endian; `bytes` are four.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job_and_answer() -> (Job, Arc<DeviceCandidate>, Answer) {
        let candidate = Arc::new(DeviceCandidate {
            n_clusters: 2,
            lines: Vec::new(),
            bound_slope: 0.0,
            bound_base: 0.0,
        });
        let job = Job {
            n_rows: 5,
            n_features: 1,
            tiles: Vec::new(),
            tile_norms: Vec::new(),
            candidates: vec![candidate.clone()],
            wants_labels: true,
        };
        let answer = Answer {
            counts: vec![3, 1],
            sums: vec![0; 2],
            uncertain: vec![4],
            labels: vec![0, 1, 0, 0, 1],
        };
        (job, candidate, answer)
    }

    #[test]
    fn a_device_that_talks_nonsense_is_found_out() {
        let (job, candidate, good) = job_and_answer();
        let verdict = |answer: &Answer| {
            check(
                &job,
                std::slice::from_ref(&candidate),
                std::slice::from_ref(answer),
            )
        };
        assert_eq!(verdict(&good), Ok(()));
        let mut missing = good.clone();
        missing.counts[0] = 2;
        assert!(verdict(&missing).is_err());
        let mut no_such_row = good.clone();
        no_such_row.uncertain[0] = 5;
        assert!(verdict(&no_such_row).is_err());
        let mut no_such_label = good.clone();
        no_such_label.labels[2] = 2;
        assert!(verdict(&no_such_label).is_err());
    }

    #[test]
    fn halves_of_negative_sums_go_together() {
        let (job, candidate, _) = job_and_answer();
        let sums: Vec<u8> = [-3i64, 1 << 40]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        let counts: Vec<u8> = [7u32, 9].iter().flat_map(|c| c.to_le_bytes()).collect();
        let labels: Vec<u8> = [1u16, 0, 1, 1, 0, 0, 0, 0]
            .iter()
            .flat_map(|l| l.to_le_bytes())
            .collect();
        let answers = split(&job, &[candidate], &sums, &counts, &labels);
        assert_eq!(answers[0].sums, [-3, 1 << 40]);
        assert_eq!(answers[0].counts, [7, 9]);
        assert_eq!(answers[0].labels, [1, 0, 1, 1, 0]);
    }
}
