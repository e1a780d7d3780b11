//! A small driver over the public API: what the coordinator does, without the cluster.

use clientele_kmeans::cpu::CpuBackend;
use clientele_kmeans::lloyd::{Candidate, Step, StopReason, inertia};
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::seeding::{Seeding, race_block, recluster};
use clientele_kmeans::{Backend, Block, Centroids, Partial, Totals};

/// Grid rows cut into blocks.
pub struct Data {
    pub blocks: Vec<Block>,
    pub totals: Totals,
}

impl Data {
    /// `values` [n_rows x n_features] grid integers, `keys` [n_rows]; blocks of `block_rows` rows.
    pub fn new(n_features: usize, values: &[i32], keys: &[u64], block_rows: usize) -> Self {
        let blocks: Vec<Block> = values
            .chunks(block_rows * n_features)
            .zip(keys.chunks(block_rows))
            .enumerate()
            .map(|(id, (values, keys))| {
                Block::from_rows(id as u64, n_features, values, keys.to_vec()).unwrap()
            })
            .collect();
        let mut totals = Totals::zero(n_features);
        blocks
            .iter()
            .for_each(|block| totals.merge(&Totals::of_block(block)));
        Self { blocks, totals }
    }

    pub fn pass(&self, backend: &CpuBackend, centroids: &Centroids) -> Partial {
        let mut total = Partial::zero(centroids.n_clusters(), centroids.n_features());
        for block in &self.blocks {
            let partials = backend
                .pass(block, std::slice::from_ref(centroids), None)
                .unwrap();
            total.merge(&partials[0]);
        }
        total
    }

    pub fn far_rows(
        &self,
        backend: &CpuBackend,
        centroids: &Centroids,
        limit: usize,
    ) -> FarthestRows {
        let mut far = FarthestRows::new(limit);
        for block in &self.blocks {
            far.merge(FarthestRows::of_block(backend, block, centroids, limit));
        }
        far
    }

    /// Runs one candidate to its end; also its final inertia and stop reason.
    pub fn fit(
        &self,
        backend: &CpuBackend,
        initial: Centroids,
        threshold: u128,
        max_iter: u32,
    ) -> (Candidate, i128, StopReason) {
        let mut candidate = Candidate::new(initial, threshold, max_iter);
        let reason = loop {
            let partial = self.pass(backend, candidate.centroids());
            let mut step = candidate.absorb(&partial, self.totals.squares);
            if let Step::NeedsRows { limit } = step {
                let far = self.far_rows(backend, candidate.centroids(), limit);
                step = candidate.relocate(&far);
            }
            if let Step::Done(reason) = step {
                break reason;
            }
        };
        let last = self.pass(backend, candidate.centroids());
        let inertia = inertia(self.totals.squares, &last, candidate.centroids());
        (candidate, inertia, reason)
    }

    /// Seeds for up to `k_max` clusters: candidates and their weights.
    #[allow(dead_code, reason = "not every test file seeds")]
    pub fn seed(&self, backend: &CpuBackend, k_max: usize, seed: u64) -> (Centroids, Vec<u64>) {
        let mut seeding = Seeding::new(k_max, &self.totals, seed);
        while let Some(round) = seeding.request() {
            let races = self
                .blocks
                .iter()
                .map(|block| race_block(backend, block, &round));
            let race = races.reduce(|mut a, b| {
                a.merge(b);
                a
            });
            seeding.absorb(race.unwrap());
        }
        let weights = self.pass(backend, seeding.candidates()).counts;
        (seeding.candidates().clone(), weights)
    }

    /// The least inertia of `n_restarts` fits.
    #[allow(dead_code, reason = "not every test file seeds")]
    pub fn best_inertia(&self, k: usize, k_max: usize, seed: u64, n_restarts: u32) -> i128 {
        let backend = CpuBackend::new();
        let (candidates, weights) = self.seed(&backend, k_max, seed);
        (0..n_restarts)
            .map(|restart| {
                let initial = recluster(&candidates, &weights, k, seed, restart);
                self.fit(&backend, initial, 0, 300).1
            })
            .min()
            .unwrap()
    }
}

/// Row keys that look like the hashes they are in earnest.
pub fn keys(n_rows: usize) -> Vec<u64> {
    (1..=n_rows as u64)
        .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
        .collect()
}
