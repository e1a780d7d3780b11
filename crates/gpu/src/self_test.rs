//! A fixed problem that every device answers before it is trusted.
//!
//! Small, but it goes everywhere the shaders go: one row, two and four an invocation, in registers and in storage, whole tiles of
//! clusters and halves, sums in workgroup memory in one piece and in several, sums straight into storage, a row less and a row
//! more than a tile and a workgroup, ties, duplicates, values at the edge of the grid, and centroids so far away that a device which rounds more coarsely than the
//! error bound allows is found out.

use clientele_kmeans::cpu::{CpuBackend, Travel};
use clientele_kmeans::{Backend, BackendError, Block, BlockLabels, Centroids, GRID_LIMIT, Partial};

/// Hash of the right answer, as `clientele_kmeans::reference` gives it.
pub const EXPECTED: u64 = 0x57ea_b1b4_b3bc_eafb;

/// Hash of the right answer to passes one after the other, likewise.
pub const EXPECTED_IN_STEPS: u64 = 0x4978_af3c_86d8_f1a5;

/// n_rows, n_features and n_clusters of passes one after the other, and whether centroids are far away: a row in registers and in storage.
const STEPPED_SHAPES: [(usize, usize, usize, bool); 3] = [
    (1_025, 5, 9, false),
    (300, 5, 4, true),
    (511, 650, 4, false),
];

/// Passes over each.
const N_STEPS: i32 = 6;

/// n_rows, n_features, and n_clusters of each candidate. Few different n_features: each is a shader to compile.
const SHAPES: [(usize, usize, &[usize]); 7] = [
    (1, 5, &[1, 2]),
    (513, 5, &[1, 2, 3, 8]),
    (1_025, 5, &[7, 9, 300]),
    (300, 20, &[2, 16, 65]),
    (511, 33, &[31, 12]),
    (17, 650, &[5, 257]),
    (600, 650, &[40, 4]),
];

/// Hash of what `backend` makes of the problem: counts, sums and labels of every candidate.
///
/// # Errors
/// Those of the backend.
pub fn answer(backend: &dyn Backend) -> Result<u64, BackendError> {
    answer_spoilt_if(false, backend)
}

/// Hash of what `pass` makes of blocks while centroids move a little from pass to pass, so that it may leave rows out: counts and sums.
///
/// # Errors
/// Those of `pass`.
pub fn answer_in_steps(
    mut pass: impl FnMut(&Block, &Travel) -> Result<Partial, BackendError>,
) -> Result<u64, BackendError> {
    let mut hash = Mixer(0);
    for (seed, (n_rows, n_features, n_clusters, is_far)) in (100..).zip(STEPPED_SHAPES) {
        let mut draw = Draw(seed);
        let values = draw.rows(n_rows, n_features);
        let Ok(block) = Block::from_rows(seed, n_features, &values, vec![0; n_rows]) else {
            unreachable!("the problem is on the grid");
        };
        let mut centroids = match is_far {
            true => draw.far_centroids(n_features, n_clusters).values().to_vec(),
            false => values[..n_clusters * n_features].to_vec(),
        };
        let mut travel = CpuBackend::new().travel(Centroids::new(n_features, centroids.clone()));
        for step in 0..N_STEPS {
            hash.partial(&pass(&block, &travel)?);
            // By a thousandth of the way from one to another, and less where they are far away.
            let most = if is_far { 3 } else { 1_000 };
            for value in &mut centroids {
                let moved = *value + draw.within(most) * (1 + step % 2);
                *value = moved.clamp(1 - GRID_LIMIT, GRID_LIMIT - 1);
            }
            travel.advance(&Centroids::new(n_features, centroids.clone()), true);
        }
    }
    Ok(hash.0)
}

/// A spoilt problem differs in one value, and so must the answer.
pub(crate) fn answer_spoilt_if(
    is_spoilt: bool,
    backend: &dyn Backend,
) -> Result<u64, BackendError> {
    let mut hash = Mixer(0);
    for (seed, (n_rows, n_features, n_clusters)) in (1..).zip(SHAPES) {
        let mut draw = Draw(seed);
        let mut values = draw.rows(n_rows, n_features);
        let candidates: Vec<Centroids> = n_clusters
            .iter()
            .enumerate()
            .map(|(idx, &n_clusters)| match idx {
                1 => draw.far_centroids(n_features, n_clusters),
                _ => draw.centroids(&values, n_features, n_clusters),
            })
            .collect();
        if is_spoilt && n_rows > 1_000 {
            values[0] += 1;
        }
        let Ok(block) = Block::from_rows(seed, n_features, &values, vec![0; n_rows]) else {
            unreachable!("the problem is on the grid");
        };
        let mut labels = BlockLabels::default();
        let partials = backend.pass(&block, &candidates, Some(&mut labels))?;
        partials.iter().for_each(|partial| hash.partial(partial));
        for label in labels.by_candidate.iter().flatten() {
            hash.word(u64::from(*label));
        }
    }
    Ok(hash.0)
}

/// Integers from a seed: `splitmix64` (Steele, Lea and Flood, 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `limit` in magnitude.
    fn within(&mut self, limit: i32) -> i32 {
        let range = 2 * u64::from(limit.unsigned_abs()) - 1;
        (self.next() % range) as i32 - (limit - 1)
    }

    /// Row-major. A third of the rows lies on a coarse lattice and ties, a third about the origin, a few at the edge of the grid.
    fn rows(&mut self, n_rows: usize, n_features: usize) -> Vec<i32> {
        let mut values = Vec::with_capacity(n_rows * n_features);
        for _ in 0..n_rows {
            let kind = self.next() % 16;
            for _ in 0..n_features {
                values.push(match kind {
                    0 => (GRID_LIMIT - 1) * (self.within(2) | 1),
                    1..=5 => self.within(3) * 1_000,
                    6..=10 => self.within(100),
                    _ => self.within(100_000),
                });
            }
        }
        values
    }

    /// About as far from the origin as the grid goes: seen from there, their scores agree in all but the last bits.
    fn far_centroids(&mut self, n_features: usize, n_clusters: usize) -> Centroids {
        let values = (0..n_clusters * n_features)
            .map(|_| (GRID_LIMIT - 3 + self.within(3)) * (self.within(2) | 1))
            .collect();
        Centroids::new(n_features, values)
    }

    /// Some rows, some lattice points, and a duplicate.
    fn centroids(&mut self, values: &[i32], n_features: usize, n_clusters: usize) -> Centroids {
        let n_rows = (values.len() / n_features) as u64;
        let mut chosen = Vec::with_capacity(n_clusters * n_features);
        for cluster_idx in 0..n_clusters {
            if cluster_idx % 3 == 1 {
                chosen.extend((0..n_features).map(|_| self.within(3) * 1_000));
            } else {
                let row_idx = (self.next() % n_rows) as usize;
                chosen.extend(&values[row_idx * n_features..][..n_features]);
            }
        }
        if n_clusters > 4 {
            chosen.copy_within(..n_features, (n_clusters - 1) * n_features);
        }
        Centroids::new(n_features, chosen)
    }
}

struct Mixer(u64);

impl Mixer {
    fn word(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word);
    }

    fn partial(&mut self, partial: &Partial) {
        partial.counts.iter().for_each(|&count| self.word(count));
        partial
            .sums
            .iter()
            .for_each(|&sum| self.word(sum.cast_unsigned()));
    }
}

/// A bijection in which every bit of the input moves half of the bits of the output.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use clientele_kmeans::reference;

    use super::*;

    /// The definition as a backend, with a flaw if wanted.
    struct Definition {
        flaw: Option<Flaw>,
    }

    enum Flaw {
        FlippedLabel,
        /// Scores in `f32`, and no doubt about any.
        Uncertified,
    }

    fn uncertified_label(row: &[i32], centroids: &[Vec<i32>]) -> usize {
        let score = |centroid: &Vec<i32>| {
            let terms = row.iter().zip(centroid);
            terms.fold(0.0f32, |sum, (&q, &c)| {
                sum + (c as f32 / 2.0 - q as f32) * c as f32
            })
        };
        let scores: Vec<f32> = centroids.iter().map(score).collect();
        let mut best = 0;
        for (idx, score) in scores.iter().enumerate() {
            if *score < scores[best] {
                best = idx;
            }
        }
        best
    }

    impl Backend for Definition {
        fn name(&self) -> String {
            "definition".to_owned()
        }

        fn pass(
            &self,
            block: &Block,
            candidates: &[Centroids],
            labels: Option<&mut BlockLabels>,
        ) -> Result<Vec<Partial>, BackendError> {
            let n_features = block.n_features();
            let rows: Vec<Vec<i32>> = (0..block.n_rows())
                .map(|row_idx| (0..n_features).map(|f| block.value(row_idx, f)).collect())
                .collect();
            let mut by_candidate = Vec::new();
            let mut partials = Vec::new();
            for candidate in candidates {
                let centroids: Vec<Vec<i32>> = candidate.rows().map(<[i32]>::to_vec).collect();
                let mut found = reference::labels(&rows, &centroids);
                match &self.flaw {
                    Some(Flaw::FlippedLabel) if found.len() == 511 => {
                        found[500] = (found[500] + 1) % centroids.len();
                    }
                    Some(Flaw::Uncertified) => {
                        let sloppy = rows.iter().map(|row| uncertified_label(row, &centroids));
                        found = sloppy.collect();
                    }
                    _ => {}
                }
                let (counts, sums) = reference::partial(&rows, &found, centroids.len(), n_features);
                let mut partial = Partial::zero(centroids.len(), n_features);
                partial.counts = counts.into_iter().map(i64::cast_unsigned).collect();
                partial.sums = sums.concat();
                partials.push(partial);
                by_candidate.push(found.into_iter().map(|label| label as u16).collect());
            }
            if let Some(labels) = labels {
                labels.by_candidate = by_candidate;
            }
            Ok(partials)
        }
    }

    #[test]
    fn the_expected_answer_is_that_of_the_definition() {
        let got = answer(&Definition { flaw: None }).unwrap();
        assert_eq!(got, EXPECTED, "the definition answers {got:#x}");
        assert_eq!(answer(&CpuBackend::new()), Ok(EXPECTED));
    }

    #[test]
    fn the_expected_answer_in_steps_is_that_of_the_definition() {
        let by = |backend: &dyn Backend| {
            answer_in_steps(|block, travel| {
                let centroids = std::slice::from_ref(travel.centroids());
                Ok(backend.pass(block, centroids, None)?.remove(0))
            })
        };
        let got = by(&Definition { flaw: None }).unwrap();
        assert_eq!(got, EXPECTED_IN_STEPS, "the definition answers {got:#x}");
        assert_eq!(by(&CpuBackend::new()), Ok(EXPECTED_IN_STEPS));
        for flaw in [Flaw::FlippedLabel, Flaw::Uncertified] {
            assert_ne!(by(&Definition { flaw: Some(flaw) }), Ok(EXPECTED_IN_STEPS));
        }
    }

    #[test]
    fn a_flipped_label_a_spoilt_value_and_unchecked_floats_change_the_answer() {
        for flaw in [Flaw::FlippedLabel, Flaw::Uncertified] {
            assert_ne!(answer(&Definition { flaw: Some(flaw) }), Ok(EXPECTED));
        }
        assert_ne!(answer_spoilt_if(true, &CpuBackend::new()), Ok(EXPECTED));
    }
}
