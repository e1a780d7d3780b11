//! What the tests share: a device or a reason to skip, problems, and the definition to compare with.

use std::sync::OnceLock;

use clientele_gpu::{GpuBackend, OpenOptions};
use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::{Backend, Block, BlockLabels, Centroids, reference};

/// One device for all tests that do nothing to it, so that each shader is compiled once.
pub fn shared() -> Option<&'static GpuBackend> {
    static SHARED: OnceLock<Option<GpuBackend>> = OnceLock::new();
    SHARED.get_or_init(|| open(OpenOptions::default())).as_ref()
}

/// Opens an adapter, software ones included. Without one, prints why and answers `None`, or fails if the environment says
/// `CLIENTELE_REQUIRE_GPU=1`.
pub fn open(options: OpenOptions) -> Option<GpuBackend> {
    let options = OpenOptions {
        allow_software: true,
        ..options
    };
    match GpuBackend::open(&options) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            let is_required = std::env::var("CLIENTELE_REQUIRE_GPU").is_ok_and(|v| v == "1");
            assert!(!is_required, "CLIENTELE_REQUIRE_GPU=1, but {error}");
            println!("skipped: {error}");
            None
        }
    }
}

/// A block and candidates for it.
pub struct Problem {
    pub block: Block,
    pub candidates: Vec<Centroids>,
}

/// How the values of a problem lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Groups that overlap.
    Blobs,
    /// Small integers: many rows are as far from one centroid as from another.
    Ties,
    /// Rows about the origin, and centroids about as far from it as the grid goes: scores agree in all but their last bits.
    NearTies,
    /// Every row and every centroid is the same.
    Constant,
    /// Only the ends of the grid.
    Extremes,
    /// Centroids come in pairs of equal ones.
    Duplicates,
}

impl Problem {
    pub fn new(values: Values, n_rows: usize, n_features: usize, n_clusters: &[usize]) -> Self {
        let mut draw = Draw(n_rows as u64 * 31 + n_features as u64);
        let rows: Vec<i32> = (0..n_rows)
            .flat_map(|row_idx| draw.row(values, row_idx % 5, n_features))
            .collect();
        let candidates = n_clusters
            .iter()
            .map(|&n_clusters| {
                let centroids = (0..n_clusters).flat_map(|cluster_idx| {
                    let group = match values {
                        // Seeded by the cluster, so that the same one comes out twice.
                        Values::Duplicates => {
                            draw = Draw(cluster_idx as u64 / 2);
                            cluster_idx % 10 / 2
                        }
                        _ => cluster_idx % 5,
                    };
                    draw.centroid(values, group, n_features)
                });
                Centroids::new(n_features, centroids.collect())
            })
            .collect();
        let block = Block::from_rows(1, n_features, &rows, vec![0; n_rows]).unwrap();
        Self { block, candidates }
    }

    pub fn n_rows(&self) -> usize {
        self.block.n_rows()
    }

    /// [n_rows] of the definition.
    pub fn true_labels(&self, candidate: &Centroids) -> Vec<u16> {
        let centroids: Vec<Vec<i32>> = candidate.rows().map(<[i32]>::to_vec).collect();
        let labels = reference::labels(&self.rows(), &centroids);
        labels.into_iter().map(|label| label as u16).collect()
    }

    /// Asks `backend` and compares with the definition and with the CPU's kernels: what differs, in words, and the share of rows it
    /// settled exactly.
    pub fn compare(&self, backend: &dyn Backend, spoil: Option<usize>) -> Result<f64, String> {
        let mut labels = BlockLabels::default();
        let partials = backend
            .pass(&self.block, &self.candidates, Some(&mut labels))
            .map_err(|error| error.to_string())?;
        let mut n_rechecked = 0;
        let mut cpu_labels = BlockLabels::default();
        let by_cpu = CpuBackend::new()
            .pass(&self.block, &self.candidates, Some(&mut cpu_labels))
            .map_err(|error| error.to_string())?;
        for (idx, (partial, by_cpu)) in partials.iter().zip(&by_cpu).enumerate() {
            let is_same = (&partial.counts, &partial.sums) == (&by_cpu.counts, &by_cpu.sums)
                && labels.by_candidate[idx] == cpu_labels.by_candidate[idx];
            if !is_same {
                return Err(format!("candidate {idx}: differs from the CPU"));
            }
        }
        for (idx, (candidate, partial)) in self.candidates.iter().zip(&partials).enumerate() {
            let mut expected = self.true_labels(candidate);
            if let Some(row_idx) = spoil {
                expected[row_idx] = (expected[row_idx] + 1) % candidate.n_clusters() as u16;
            }
            let as_usize: Vec<usize> = expected.iter().map(|&l| usize::from(l)).collect();
            let (counts, sums) = reference::partial(
                &self.rows(),
                &as_usize,
                candidate.n_clusters(),
                candidate.n_features(),
            );
            let got: Vec<i64> = partial.counts.iter().map(|&c| c as i64).collect();
            let verdicts = [
                ("counts", got == counts),
                ("sums", partial.sums == sums.concat()),
                ("labels", labels.by_candidate[idx] == expected),
                ("n_moved", partial.n_moved == Some(self.n_rows() as u64)),
            ];
            let wrong: Vec<&str> = verdicts
                .into_iter()
                .filter_map(|(what, is_right)| (!is_right).then_some(what))
                .collect();
            if !wrong.is_empty() {
                return Err(format!("candidate {idx}: {} differ", wrong.join(", ")));
            }
            n_rechecked += partial.n_rechecked;
        }
        let n_asked = self.n_rows() * self.candidates.len();
        Ok(n_rechecked as f64 / n_asked.max(1) as f64)
    }

    fn rows(&self) -> Vec<Vec<i32>> {
        let mut row = vec![0; self.block.n_features()];
        (0..self.n_rows())
            .map(|row_idx| {
                self.block.read_row(row_idx, &mut row);
                row.clone()
            })
            .collect()
    }
}

/// The largest value on the grid.
const EDGE: i32 = clientele_kmeans::GRID_LIMIT - 1;

/// `splitmix64`.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From `-limit` to `limit`.
    fn within(&mut self, limit: i32) -> i32 {
        (self.next() % (2 * limit as u64 + 1)) as i32 - limit
    }

    fn centroid(&mut self, values: Values, group: usize, n_features: usize) -> Vec<i32> {
        let mut centroid = self.row(values, group, n_features);
        if values == Values::NearTies {
            for value in &mut centroid {
                *value = (EDGE - 50 + *value) * (self.within(1) | 1);
            }
        }
        centroid
    }

    fn row(&mut self, values: Values, group: usize, n_features: usize) -> Vec<i32> {
        (0..n_features)
            .map(|feature_idx| match values {
                Values::Blobs | Values::Duplicates => {
                    let centre = ((group * 7 + feature_idx * 3) % 11) as i32 * 100_000 - 500_000;
                    centre + self.within(400_000) + self.within(400_000)
                }
                Values::Ties => self.within(2),
                Values::NearTies => self.within(50),
                Values::Constant => -77,
                Values::Extremes => EDGE * (self.within(1) | 1),
            })
            .collect()
    }
}
