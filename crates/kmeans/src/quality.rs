//! Which of the fitted models to take, until models are assessed properly.

use crate::Totals;

/// Calinski and Harabasz's ratio (1974) of the spread between clusters to the spread within, from exact sums.
///
/// `inertia` in grid steps squared. `None` where it is undefined: fewer than two clusters, or no more rows than clusters. Infinite when
/// every row lies on its centroid. The between part is `(N Q - |S|^2 - N W) / N`, whose terms stay below 2^127 ([`Totals::scatter`]).
pub fn calinski_harabasz(totals: &Totals, inertia: i128, n_clusters: usize) -> Option<f64> {
    let n_clusters = n_clusters as u64;
    if n_clusters < 2 || totals.n_rows <= n_clusters {
        return None;
    }
    let n_rows = totals.n_rows as f64;
    let between = (totals.scatter() - i128::from(totals.n_rows) * inertia) as f64 / n_rows;
    let within = inertia as f64;
    let between_mean = between / (n_clusters - 1) as f64;
    let within_mean = within / (totals.n_rows - n_clusters) as f64;
    Some(between_mean / within_mean)
}

/// What the choice looks at, of one fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct FitSummary {
    /// Clusters that have rows.
    pub n_clusters: usize,
    /// Inertia in grid steps squared.
    pub inertia: i128,
    /// Rows of the smallest cluster.
    pub smallest_size: u64,
    /// Rows in all.
    pub n_rows: u64,
    /// [`calinski_harabasz`].
    pub calinski_harabasz: Option<f64>,
}

impl FitSummary {
    /// Every cluster holds at least 5 % of the rows: below that, a group is too small to be a persona.
    pub fn is_balanced(&self) -> bool {
        u128::from(self.smallest_size) * 20 >= u128::from(self.n_rows)
    }
}

/// Index of the model to take; `None` when there is none.
///
/// For each number of clusters the fit of lowest inertia stands (the first of equals). Among those whose every share is at least 5 %
/// the highest Calinski-Harabasz wins; if no model is that balanced, the one whose smallest share is largest. Ties go to fewer clusters.
/// Never the silhouette: on raw recency, frequency and spend it rewards one giant cluster and five outliers.
pub fn choose(fits: &[FitSummary]) -> Option<usize> {
    let mut best_of_k: std::collections::BTreeMap<usize, usize> = std::collections::BTreeMap::new();
    for (idx, fit) in fits.iter().enumerate() {
        let best = best_of_k.entry(fit.n_clusters).or_insert(idx);
        if fit.inertia < fits[*best].inertia {
            *best = idx;
        }
    }
    // `max_by` takes the last of equals, so the smallest k comes last.
    let finalists = best_of_k.values().rev().copied();
    let by_ratio = |&a: &usize, &b: &usize| ratio(&fits[a]).total_cmp(&ratio(&fits[b]));
    let by_share = |&a: &usize, &b: &usize| fits[a].smallest_size.cmp(&fits[b].smallest_size);
    let balanced = finalists.clone().filter(|&idx| fits[idx].is_balanced());
    balanced
        .max_by(by_ratio)
        .or_else(|| finalists.max_by(by_share))
}

/// A model without a ratio (a single cluster) loses to any that has one.
fn ratio(fit: &FitSummary) -> f64 {
    fit.calinski_harabasz.unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(n_clusters: usize, inertia: i128, smallest_size: u64, ratio: Option<f64>) -> FitSummary {
        FitSummary {
            n_clusters,
            inertia,
            smallest_size,
            n_rows: 1_000,
            calinski_harabasz: ratio,
        }
    }

    #[test]
    fn the_ratio_is_the_textbook_one() {
        // 0, 2 | 10, 12: within 4, between 4 x 5^2 = 100, so (100 / 1) / (4 / 2) = 50.
        let totals = Totals {
            n_rows: 4,
            sums: vec![24],
            squares: 4 + 100 + 144,
        };
        assert_eq!(calinski_harabasz(&totals, 4, 2), Some(50.0));
        assert_eq!(calinski_harabasz(&totals, 104, 1), None);
        assert_eq!(calinski_harabasz(&totals, 0, 4), None);
        assert_eq!(calinski_harabasz(&totals, 0, 3), Some(f64::INFINITY));
    }

    #[test]
    fn the_highest_ratio_wins_among_the_balanced() {
        let fits = [
            fit(2, 90, 400, Some(10.0)),
            fit(3, 50, 49, Some(99.0)),
            fit(4, 41, 60, Some(70.0)),
            fit(4, 40, 50, Some(60.0)),
            fit(1, 100, 1_000, None),
        ];
        assert_eq!(
            choose(&fits),
            Some(3),
            "k = 3 has a share below 5 %, and the better fit of k = 4 stands"
        );
    }

    #[test]
    fn without_a_balanced_model_the_largest_smallest_share_wins() {
        assert_eq!(
            choose(&[fit(2, 9, 3, Some(9.0)), fit(3, 5, 40, Some(2.0))]),
            Some(1)
        );
        assert_eq!(
            choose(&[fit(3, 5, 3, Some(9.0)), fit(2, 9, 3, Some(9.0))]),
            Some(1)
        );
        assert_eq!(choose(&[]), None);
    }
}
