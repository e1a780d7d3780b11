//! What a run is asked for, and whether it can be done.

use clientele_kmeans::{MAX_CLUSTERS, MAX_FEATURES, MAX_ROWS};

use crate::{BenchError, Data, Device};

/// What is to be measured; every combination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Kinds of rows.
    pub data: Vec<Data>,
    /// Numbers of rows.
    pub rows: Vec<u64>,
    /// Numbers of features.
    pub features: Vec<usize>,
    /// Numbers of clusters.
    pub clusters: Vec<usize>,
    /// Passes timed at each point.
    pub n_passes: u32,
}

impl Settings {
    /// Sorts the lists, drops repetitions, and looks whether all of it can be done within `memory_bytes`; see also
    /// [`Settings::check_memory`].
    ///
    /// # Errors
    /// The first thing that cannot.
    pub fn check(mut self, memory_bytes: u64) -> Result<Self, BenchError> {
        self.rows.sort_unstable();
        self.rows.dedup();
        self.features.sort_unstable();
        self.features.dedup();
        self.clusters.sort_unstable();
        self.clusters.dedup();
        let (Some(&n_rows), Some(&most_rows)) = (self.rows.first(), self.rows.last()) else {
            return Err(BenchError::Zero { list: "rows" });
        };
        let (Some(&n_features), Some(&most_features)) =
            (self.features.first(), self.features.last())
        else {
            return Err(BenchError::Zero { list: "features" });
        };
        let (Some(&n_clusters), Some(&most_clusters)) =
            (self.clusters.first(), self.clusters.last())
        else {
            return Err(BenchError::Zero { list: "clusters" });
        };
        let at_least_one = [
            ("rows", n_rows),
            ("features", n_features as u64),
            ("clusters", n_clusters as u64),
            ("passes", u64::from(self.n_passes)),
        ];
        if let Some((list, _)) = at_least_one.into_iter().find(|(_, n)| *n == 0) {
            return Err(BenchError::Zero { list });
        }
        let limits = [
            ("n_rows", most_rows, MAX_ROWS),
            ("n_features", most_features as u64, MAX_FEATURES as u64),
            ("n_clusters", most_clusters as u64, MAX_CLUSTERS as u64),
        ];
        if let Some((what, wanted, limit)) = limits.into_iter().find(|(_, n, limit)| n > limit) {
            return Err(BenchError::AboveLimit {
                what,
                wanted,
                limit,
            });
        }
        if n_rows < most_clusters as u64 {
            return Err(BenchError::TooFewRows {
                n_rows,
                n_clusters: most_clusters,
            });
        }
        self.check_memory(&[], memory_bytes)?;
        Ok(self)
    }

    /// Looks whether the rows fit into `memory_bytes`, with what of them stays with `devices` that share this machine's memory.
    ///
    /// # Errors
    /// [`BenchError::Memory`].
    pub fn check_memory(
        &self,
        devices: &[Box<dyn Device>],
        memory_bytes: u64,
    ) -> Result<(), BenchError> {
        let n_rows = self.rows.iter().copied().max().unwrap_or(0);
        let n_features = self.features.iter().copied().max().unwrap_or(0);
        // Below 2^35 x 2^15: the limits have been looked at. Values, padding and keys.
        let rows_bytes = n_rows * (n_features as u64 * 4 + 9);
        let value_bytes = n_rows * n_features as u64 * 4;
        let resident = devices.iter().map(|d| d.resident_bytes(value_bytes));
        let resident_bytes = resident.sum();
        if rows_bytes + resident_bytes > memory_bytes {
            return Err(BenchError::Memory {
                n_rows,
                n_features,
                rows_bytes,
                resident_bytes,
                limit_bytes: memory_bytes,
            });
        }
        Ok(())
    }

    /// Points on each device.
    pub fn n_shapes(&self) -> usize {
        self.data.len() * self.rows.len() * self.features.len() * self.clusters.len()
    }
}

#[cfg(test)]
mod tests {
    use clientele_kmeans::{BackendError, Block, Centroids, Partial};

    use super::*;
    use crate::device::{self, CpuDevice};
    use crate::{Controls, DeviceKind};

    /// Keeps every row in this machine's memory.
    struct Keeps(CpuDevice);

    impl Device for Keeps {
        fn name(&self) -> String {
            self.0.name()
        }
        fn kind(&self) -> DeviceKind {
            DeviceKind::Gpu
        }
        fn driver(&self) -> Option<String> {
            None
        }
        fn is_software(&self) -> bool {
            true
        }
        fn n_threads(&self) -> usize {
            1
        }
        fn controls(&self) -> Controls {
            self.0.controls()
        }
        fn pass(
            &self,
            blocks: &[Block],
            candidates: &[Centroids],
        ) -> Result<Vec<Partial>, BackendError> {
            self.0.pass(blocks, candidates)
        }
        fn resident_bytes(&self, n_bytes: u64) -> u64 {
            n_bytes
        }
    }

    #[test]
    fn rows_that_stay_with_devices_take_memory_too() {
        let settings = Settings {
            data: vec![Data::Mixture],
            rows: vec![1 << 20],
            features: vec![4, 32],
            clusters: vec![2],
            n_passes: 1,
        };
        // 137 bytes a row, and 128 for each that keeps it.
        let settings = settings.check(137 << 20).unwrap();
        let keeps = || -> Box<dyn Device> {
            let pool = device::pool(1).unwrap();
            Box::new(Keeps(CpuDevice::new(None, pool).unwrap()))
        };
        let error = settings.check_memory(&[keeps()], 200 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1,048,576 rows of 32 features take 137 MiB and another 128 MiB on GPUs without memory of their own, and half of this machine's memory is 200 MiB"
        );
        settings.check_memory(&[keeps()], 265 << 20).unwrap();
        assert!(
            settings
                .check_memory(&[keeps(), keeps()], 392 << 20)
                .is_err()
        );
    }
}
