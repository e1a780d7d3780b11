//! What the final pass tells.

use clientele_kmeans::{GRID_LIMIT, MAX_CLUSTERS};
use clientele_protocol::{FinalPartial, Histograms, MARGIN_BINS, RowHashSum, profile_bins};

use crate::check::{self, ROWS, required, wire_size};
use crate::{WireError, v1, wide};

/// Features of all clusters of a model, at most, in histograms that come over the wire: 1 GiB of them, which a message must pay for
/// with at least a byte a feature.
pub const MAX_HISTOGRAM_CELLS: usize = 1 << 22;

/// Squared distances are below this on the grid.
const D2_LIMIT: i128 = 1 << 58;

impl From<&FinalPartial> for v1::FinalAnswer {
    fn from(partial: &FinalPartial) -> Self {
        Self {
            sizes: partial.sizes.clone(),
            inertia: partial.inertia.to_le_bytes().to_vec(),
            seconds: partial.seconds.clone(),
            margins: partial.margins.clone(),
            values: wide::bytes(&partial.values),
            histograms: Some((&partial.histograms).into()),
            row_hashes: partial.row_hashes.to_le_bytes().to_vec(),
            valued: partial.valued.clone(),
        }
    }
}

impl TryFrom<v1::FinalAnswer> for FinalPartial {
    type Error = WireError;

    fn try_from(message: v1::FinalAnswer) -> Result<Self, WireError> {
        let n_clusters = message.sizes.len();
        check::within("n_clusters", n_clusters as u64, 1..=MAX_CLUSTERS as i128)?;
        check::shape("seconds", message.seconds.len(), n_clusters * n_clusters)?;
        check::shape("margins", message.margins.len(), n_clusters * MARGIN_BINS)?;
        let n_values = match message.valued.len() {
            0 => 0,
            _ => n_clusters,
        };
        check::shape("valued", message.valued.len(), n_values)?;
        for (field, counts) in [
            ("sizes", &message.sizes),
            ("seconds", &message.seconds),
            ("margins", &message.margins),
            ("valued", &message.valued),
        ] {
            check::all_within(field, counts, ROWS)?;
        }
        let values = wide::many("values", &message.values, n_values)?;
        for (value, n_valued) in values.iter().zip(&message.valued) {
            check::sum("values", *value, *n_valued, 1 << 63)?;
        }
        let histograms = required("histograms", message.histograms)?;
        Ok(Self {
            inertia: inertia(&message.inertia, &message.sizes)?,
            sizes: message.sizes,
            seconds: message.seconds,
            margins: message.margins,
            values,
            histograms: histograms_from_wire(histograms, n_clusters)?,
            row_hashes: RowHashSum::from_le_bytes(check::array("row_hashes", &message.row_hashes)?),
            valued: message.valued,
        })
    }
}

/// Below the largest distance of every row.
fn inertia(bytes: &[u8], sizes: &[u64]) -> Result<u128, WireError> {
    let signed = wide::one("inertia", bytes)?;
    let n_rows: i128 = sizes.iter().map(|size| i128::from(*size)).sum();
    check::within("inertia", signed, 0..=n_rows * D2_LIMIT)?;
    Ok(signed.cast_unsigned())
}

impl From<&Histograms> for v1::Histograms {
    fn from(histograms: &Histograms) -> Self {
        let mut message = Self {
            n_features: wire_size(histograms.n_features()),
            ..Self::default()
        };
        let (counts, sums) = histograms.raw();
        let n_bins = histograms.n_bins();
        for (counts, sums) in counts.chunks_exact(n_bins).zip(sums.chunks_exact(n_bins)) {
            let mut next = 0;
            let mut n_used = 0;
            for (bin_idx, (count, sum)) in (0..).zip(counts.iter().zip(sums)) {
                if *count > 0 {
                    message.gaps.push(bin_idx - next);
                    message.counts.push(*count);
                    message.sums.push(*sum);
                    (next, n_used) = (bin_idx + 1, n_used + 1);
                }
            }
            message.n_used.push(n_used);
        }
        message
    }
}

fn histograms_from_wire(
    message: v1::Histograms,
    n_clusters: usize,
) -> Result<Histograms, WireError> {
    let n_features = check::size("n_features", message.n_features, check::FEATURES)?;
    let n_cells = n_clusters * n_features;
    check::within("n_cells", n_cells as u64, 0..=MAX_HISTOGRAM_CELLS as i128)?;
    check::shape("n_used", message.n_used.len(), n_cells)?;
    let n_used: usize = message.n_used.iter().map(|n_used| *n_used as usize).sum();
    check::shape("gaps", message.gaps.len(), n_used)?;
    check::shape("counts", message.counts.len(), n_used)?;
    check::shape("sums", message.sums.len(), n_used)?;

    let n_bins = profile_bins(n_clusters, n_features);
    let mut counts = vec![0; n_cells * n_bins];
    let mut sums = vec![0; n_cells * n_bins];
    let mut used = message
        .gaps
        .iter()
        .zip(message.counts.iter().zip(&message.sums));
    for (cell_idx, n_used) in message.n_used.iter().enumerate() {
        let mut next = 0_u64;
        for (gap, (count, sum)) in used.by_ref().take(*n_used as usize) {
            let bin_idx = next + u64::from(*gap);
            check::within("gaps", bin_idx, 0..=n_bins as i128 - 1)?;
            check::within("counts", *count, 1..=*ROWS.end())?;
            check::sum("sums", (*sum).into(), *count, i128::from(GRID_LIMIT) - 1)?;
            let at = cell_idx * n_bins + bin_idx as usize;
            (counts[at], sums[at]) = (*count, *sum);
            next = bin_idx + 1;
        }
    }
    Ok(Histograms::from_raw(n_clusters, n_features, counts, sums))
}
