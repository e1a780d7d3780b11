//! The definition of grid k-means, as plainly as it can be said. Every backend is compared with it by equality; none is built on it.

use crate::Centroids;

type Row = Vec<i32>;

fn d2(a: &[i32], b: &[i32]) -> i64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (i64::from(a) - i64::from(b)).pow(2))
        .sum()
}

/// Index of the nearest centroid of each row; ties go to the lowest index.
pub fn labels(rows: &[Row], centroids: &[Row]) -> Vec<usize> {
    let nearest = |row: &Row| (0..centroids.len()).min_by_key(|&j| d2(row, &centroids[j]));
    rows.iter()
        .map(|row| nearest(row).expect("at least one centroid"))
        .collect()
}

/// [n_clusters] counts and [n_clusters][n_features] sums of the rows of each label.
pub fn partial(
    rows: &[Row],
    labels: &[usize],
    n_clusters: usize,
    n_features: usize,
) -> (Vec<i64>, Vec<Vec<i64>>) {
    let mut counts = vec![0; n_clusters];
    let mut sums = vec![vec![0; n_features]; n_clusters];
    for (row, &label) in rows.iter().zip(labels) {
        counts[label] += 1;
        for (sum, &value) in sums[label].iter_mut().zip(row) {
            *sum += i64::from(value);
        }
    }
    (counts, sums)
}

/// Gives every empty cluster, lowest index first, the row that is farthest from its centroid (ties: key, then row), among rows that
/// are not on it, whose cluster keeps a row, and at whose position no row was taken before. Returns whether any row moved.
pub fn relocate(rows: &[Row], keys: &[u64], centroids: &[Row], labels: &mut [usize]) -> bool {
    let old = labels.to_vec();
    let mut counts = vec![0; centroids.len()];
    old.iter().for_each(|&label| counts[label] += 1);
    let mut taken: Vec<&Row> = Vec::new();
    for empty in 0..centroids.len() {
        if counts[empty] > 0 {
            continue;
        }
        let away = |i: usize| d2(&rows[i], &centroids[old[i]]);
        let farthest = (0..rows.len())
            .filter(|&i| away(i) > 0 && counts[old[i]] > 1 && !taken.contains(&&rows[i]))
            .min_by_key(|&i| (-away(i), keys[i], &rows[i]));
        if let Some(i) = farthest {
            (counts[old[i]], counts[empty], labels[i]) = (counts[old[i]] - 1, 1, empty);
            taken.push(&rows[i]);
        }
    }
    !taken.is_empty()
}

/// The mean of each cluster, rounded to the grid, halves to even; an empty cluster keeps its centroid.
pub fn update(counts: &[i64], sums: &[Vec<i64>], centroids: &[Row]) -> Vec<Row> {
    let mean = |sum: i64, n: i64| {
        let twice = 2 * sum + n; // round(s / n) = floor((2 s + n) / 2 n), which rounds halves up
        let up = twice.div_euclid(2 * n);
        if twice.rem_euclid(2 * n) == 0 {
            up - up.rem_euclid(2)
        } else {
            up
        }
    };
    (0..centroids.len())
        .map(|j| match counts[j] {
            0 => centroids[j].clone(),
            n => sums[j].iter().map(|&sum| mean(sum, n) as i32).collect(),
        })
        .collect()
}

/// Sum of the squared distances of the rows to the centroids of their labels.
pub fn inertia(rows: &[Row], labels: &[usize], centroids: &[Row]) -> i128 {
    rows.iter()
        .zip(labels)
        .map(|(row, &label)| i128::from(d2(row, &centroids[label])))
        .sum()
}

/// What a whole fit comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// [n_clusters][n_features].
    pub centroids: Vec<Row>,
    /// [n_rows] nearest of these centroids.
    pub labels: Vec<usize>,
    /// Passes made, without the one that gave the labels.
    pub n_iter: u32,
    /// In grid steps squared.
    pub inertia: i128,
}

/// Lloyd's iteration from `initial`: until no row was relocated and the centroids moved by at most `threshold`, squared and summed, or
/// `max_iter` times. `rows` [n_rows][n_features], `keys` [n_rows].
pub fn fit(rows: &[Row], keys: &[u64], initial: &Centroids, threshold: u128, max_iter: u32) -> Fit {
    let mut centroids: Vec<Row> = initial.rows().map(<[i32]>::to_vec).collect();
    let mut n_iter = 0;
    while n_iter < max_iter {
        n_iter += 1;
        let mut labels = labels(rows, &centroids);
        let relocated = relocate(rows, keys, &centroids, &mut labels);
        let (counts, sums) = partial(rows, &labels, centroids.len(), initial.n_features());
        let updated = update(&counts, &sums, &centroids);
        let center_shift: u128 = centroids
            .iter()
            .zip(&updated)
            .map(|(a, b)| d2(a, b) as u128)
            .sum();
        centroids = updated;
        if !relocated && center_shift <= threshold {
            break;
        }
    }
    let labels = labels(rows, &centroids);
    let inertia = inertia(rows, &labels, &centroids);
    Fit {
        centroids,
        labels,
        n_iter,
        inertia,
    }
}
