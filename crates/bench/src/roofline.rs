//! The least time that a pass can take on a machine (the roofline model: Williams, Waterman, Patterson 2009).

use serde::{Deserialize, Serialize};

use crate::{Controls, Shape};

/// What the limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Every row must be read once.
    Memory,
    /// Every row must be multiplied with every centroid.
    Compute,
}

/// The least time of a pass, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Milliseconds.
    pub ms: f64,
    /// Which of the two is longer.
    pub bound: Bound,
}

impl Shape {
    /// Bytes of memory that a pass must read: every value once, four bytes each.
    pub fn pass_bytes(&self) -> f64 {
        self.n_rows as f64 * self.n_features as f64 * 4.0
    }

    /// Multiply-adds that a pass must do: one for each row, centroid and feature. What is skipped by proof counts as done.
    pub fn pass_multiply_adds(&self) -> f64 {
        self.n_rows as f64 * self.n_features as f64 * self.n_clusters as f64
    }

    /// The longer of reading and multiplying, as if both went on side by side; `None` where a control is missing.
    pub fn limit(&self, controls: &Controls) -> Option<Limit> {
        let memory = self.pass_bytes() / controls.bandwidth()? * 1e3;
        let compute = self.pass_multiply_adds() / controls.multiply_adds_per_s? * 1e3;
        Some(if memory >= compute {
            Limit {
                ms: memory,
                bound: Bound::Memory,
            }
        } else {
            Limit {
                ms: compute,
                bound: Bound::Compute,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Data;

    #[test]
    fn the_limit_is_the_longer_of_reading_and_multiplying() {
        let controls = Controls {
            copy_bytes_per_s: Some(20e9),
            read_bytes_per_s: Some(25e9),
            multiply_adds_per_s: Some(160e9),
        };
        let limit = |n_clusters| {
            let shape = Shape {
                data: Data::Mixture,
                n_rows: 2_000_000,
                n_features: 32,
                n_clusters,
            };
            shape.limit(&controls).unwrap()
        };
        // 256 MB at 25 GB/s; 2e6 x 32 x 64 at 160e9/s.
        assert_eq!(
            limit(8),
            Limit {
                ms: 10.24,
                bound: Bound::Memory
            }
        );
        assert_eq!(
            limit(64),
            Limit {
                ms: 25.6,
                bound: Bound::Compute
            }
        );
        let shape = Shape {
            data: Data::Mixture,
            n_rows: 1,
            n_features: 1,
            n_clusters: 1,
        };
        assert_eq!(shape.limit(&Controls::default()), None);
    }
}
