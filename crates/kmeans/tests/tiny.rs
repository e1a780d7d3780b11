//! Every kernel on problems so small that an interpreter which checks each access to memory (Miri, see `.ci/miri`) gets through them:
//! rows that do not fill a tile, features that do not fill a transposed group, centroids that do not fill a panel.

use clientele_kmeans::cpu::{BlockMemory, CpuBackend, Kernel};
use clientele_kmeans::{Backend, Block, BlockLabels, Centroids, exact, reference};

/// [n_rows][n_features] and [n_clusters][n_features]: small integers, with ties, and far rows that floats cannot tell apart.
fn problem(n_rows: usize, n_features: usize, n_clusters: usize) -> [Vec<Vec<i32>>; 2] {
    let value = |row: usize, feature: usize| {
        let near = ((row * 7 + feature * 3) % 5) as i32 - 2;
        if row % 4 == 3 { 4_000_000 + near } else { near }
    };
    let rows = |n: usize, from: usize| -> Vec<Vec<i32>> {
        let row = |idx| (0..n_features).map(|f| value(idx + from, f)).collect();
        (0..n).map(row).collect()
    };
    [rows(n_rows, 0), rows(n_clusters, 2)]
}

#[test]
fn every_kernel_answers_as_the_reference_on_tiny_problems() {
    for (n_rows, n_features, n_clusters) in [(19, 5, 7), (1, 1, 1), (50, 9, 3)] {
        let [rows, centroids] = problem(n_rows, n_features, n_clusters);
        let keys = (0..n_rows as u64).collect();
        let block = Block::from_rows(0, n_features, &rows.concat(), keys).unwrap();
        let labels = reference::labels(&rows, &centroids);
        let (counts, sums) = reference::partial(&rows, &labels, n_clusters, n_features);
        let centroids = Centroids::new(n_features, centroids.concat());
        let mut twos = Vec::new();
        exact::nearest_two_in_block(&block, &centroids, &mut twos);
        for kernel in Kernel::available() {
            let backend = CpuBackend::with_kernel(kernel).unwrap();
            let mut kept = BlockLabels::default();
            let asked = std::slice::from_ref(&centroids);
            let partial = backend.pass(&block, asked, Some(&mut kept)).unwrap();
            let mut memory = BlockMemory::default();
            let mut travel = backend.travel(centroids.clone());
            for _ in 0..2 {
                let answered = backend.pass_remembering(&block, &mut [(&travel, &mut memory)]);
                assert_eq!(answered[0].0.sums, partial[0].sums, "{kernel:?}");
                travel.advance(&centroids, true);
            }
            let found: Vec<usize> = kept.by_candidate[0].iter().map(|l| (*l).into()).collect();
            assert_eq!(found, labels, "{kernel:?}");
            assert_eq!(partial[0].sums, sums.concat(), "{kernel:?}");
            let found: Vec<i64> = partial[0].counts.iter().map(|n| *n as i64).collect();
            assert_eq!(found, counts, "{kernel:?}");
            let mut certified = Vec::new();
            backend.nearest_two(&block, &centroids, &mut certified);
            assert_eq!(certified, twos, "{kernel:?}");
        }
    }
}
