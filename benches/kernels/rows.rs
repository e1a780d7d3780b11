//! Rows and centroids for the kernel benches: overlapping groups on the grid, the same every time.

use clientele_kmeans::{BLOCK_ROWS, Block, Centroids};

/// Groups that rows are drawn from.
const N_GROUPS: usize = 40;

/// A full block of `n_features`.
///
/// # Panics
/// Never: the rows lie on the grid.
pub fn block(n_features: usize) -> Block {
    let mut mix = Mix(7);
    let centres: Vec<i32> = (0..N_GROUPS * n_features)
        .map(|_| mix.below(1 << 21) - (1 << 20))
        .collect();
    let mut values = Vec::with_capacity(BLOCK_ROWS * n_features);
    for _ in 0..BLOCK_ROWS {
        let group = mix.below(N_GROUPS as i32) as usize;
        for centre in &centres[group * n_features..][..n_features] {
            let noise: i32 = (0..4).map(|_| mix.below(1 << 19)).sum();
            values.push(centre + noise - (1 << 20));
        }
    }
    let keys = (0..BLOCK_ROWS as u64).collect();
    Block::from_rows(0, n_features, &values, keys).expect("rows on the grid")
}

/// `n_clusters` rows of `block`, from `first` on.
pub fn centroids(block: &Block, n_clusters: usize, first: usize) -> Centroids {
    let mut values = vec![0; n_clusters * block.n_features()];
    for (nth, row) in values.chunks_exact_mut(block.n_features()).enumerate() {
        block.read_row((first + nth * 97) % block.n_rows(), row);
    }
    Centroids::new(block.n_features(), values)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Mix(u64);

impl Mix {
    fn below(&mut self, limit: i32) -> i32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 33) % limit as u64) as i32
    }
}
