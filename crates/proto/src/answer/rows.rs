//! Lists of the best rows.

use clientele_kmeans::MAX_CLUSTERS;
use clientele_kmeans::relocate::{FarRow, FarthestRows};
use clientele_kmeans::seeding::{Race, RaceEntry};

use crate::check::{self, wire_size};
use crate::stage::limit;
use crate::{WireError, v1};

/// Draws: `2^40 x -ln u` is below 2^46.
const MAX_DRAW: i128 = (1 << 46) - 1;
/// Squared distances are below 2^58 on the grid.
const MAX_D2: i128 = (1 << 58) - 1;

impl From<&Race> for v1::SeedAnswer {
    fn from(race: &Race) -> Self {
        Self {
            limit: wire_size(race.limit()),
            e: race.entries().map(|entry| entry.e).collect(),
            d2: race.entries().map(|entry| entry.d2).collect(),
            keys: race.entries().map(|entry| entry.key).collect(),
            n_features: race
                .entries()
                .next()
                .map_or(0, |entry| wire_size(entry.row.len())),
            rows: race
                .entries()
                .flat_map(|entry| entry.row)
                .copied()
                .collect(),
        }
    }
}

impl TryFrom<v1::SeedAnswer> for Race {
    type Error = WireError;

    fn try_from(message: v1::SeedAnswer) -> Result<Self, WireError> {
        let mut race = Self::new(limit(message.limit)?);
        let n_rows = n_rows(&message.d2, &message.keys, race.limit())?;
        check::shape("e", message.e.len(), n_rows)?;
        check::all_within("e", &message.e, 0..=MAX_DRAW)?;
        for (row_idx, row) in grid_rows(n_rows, message.n_features, &message.rows)?.enumerate() {
            race.offer(RaceEntry {
                e: message.e[row_idx],
                d2: message.d2[row_idx],
                key: message.keys[row_idx],
                row,
            });
        }
        // A position that came twice.
        check::shape("rows", n_rows, race.entries().len())?;
        Ok(race)
    }
}

impl From<&FarthestRows> for v1::FarthestRows {
    fn from(far: &FarthestRows) -> Self {
        Self {
            limit: wire_size(far.limit()),
            d2: far.rows().map(|far| far.d2).collect(),
            keys: far.rows().map(|far| far.key).collect(),
            donors: far.rows().map(|far| far.donor.into()).collect(),
            n_features: far.rows().next().map_or(0, |far| wire_size(far.row.len())),
            rows: far.rows().flat_map(|far| far.row).copied().collect(),
        }
    }
}

impl TryFrom<v1::FarthestRows> for FarthestRows {
    type Error = WireError;

    fn try_from(message: v1::FarthestRows) -> Result<Self, WireError> {
        let mut far = Self::new(limit(message.limit)?);
        let n_rows = n_rows(&message.d2, &message.keys, far.limit())?;
        check::shape("donors", message.donors.len(), n_rows)?;
        check::all_within("donors", &message.donors, 0..=MAX_CLUSTERS as i128 - 1)?;
        for (row_idx, row) in grid_rows(n_rows, message.n_features, &message.rows)?.enumerate() {
            far.offer(FarRow {
                d2: message.d2[row_idx],
                key: message.keys[row_idx],
                donor: message.donors[row_idx] as u16,
                row,
            });
        }
        check::shape("rows", n_rows, far.rows().len())?;
        Ok(far)
    }
}

fn n_rows(d2: &[u64], keys: &[u64], limit: usize) -> Result<usize, WireError> {
    check::within("n_rows", d2.len() as u64, 0..=limit as i128)?;
    check::all_within("d2", d2, 1..=MAX_D2)?;
    check::shape("keys", keys.len(), d2.len())?;
    Ok(d2.len())
}

/// Rows on the grid; without rows there are no features either.
fn grid_rows(
    n_rows: usize,
    n_features: u32,
    rows: &[i32],
) -> Result<std::slice::ChunksExact<'_, i32>, WireError> {
    let n_features = match n_rows {
        0 => {
            check::shape("rows", rows.len(), 0)?;
            1
        }
        _ => check::grid_rows("rows", n_rows, n_features, rows)?,
    };
    Ok(rows.chunks_exact(n_features))
}
