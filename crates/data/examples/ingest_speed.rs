//! Seconds to plan, to take statistics of and to put on the grid the numeric columns of Parquet files, with the answers beside the
//! times: `cargo run --release -p clientele-data --example ingest_speed -- FILE... [--spill] [--threads=N]`

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use clientele_data::budget::Budget;
use clientele_data::ingest::IngestPartial;
use clientele_data::manifest::BlockId;
use clientele_data::read::{Projection, RawBlock, read_shard};
use clientele_data::stats::{StatsPartial, StatsPlanner};
use clientele_data::store::BlockStore;
use clientele_data::tiles::{RawTiles, Spread, read_tiles};
use clientele_data::transform::{Transform, TransformKind};
use clientele_data::{Columns, DataError, Manifest, NullPolicy, ShardId, TableSpec};
use rayon::prelude::*;

/// Decoded shards.
type Kept = Mutex<BTreeMap<ShardId, Vec<RawTiles>>>;

fn main() -> Result<(), DataError> {
    let (flags, inputs): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|arg| arg.starts_with("--"));
    let flag = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name));
    if let Some(n_threads) = flag("--threads=").and_then(|n| n.parse().ok()) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
        pool.build_global().expect("the first pool");
    }
    let spec = TableSpec {
        inputs,
        id: Some("customer_id".to_owned()),
        columns: Columns::AllNumeric,
        nulls: NullPolicy::Impute,
        value: None,
    };
    let manifest = timed("plan", || Manifest::plan(&spec))?;
    println!(
        "{} rows, {} features, {} shards",
        manifest.n_rows(),
        manifest.n_features(),
        manifest.n_shards()
    );
    for kind in [
        TransformKind::None,
        TransformKind::Zscore,
        TransformKind::Auto,
    ] {
        let kept = Kept::default();
        let (transform, n_rounds) = timed(&format!("statistics {kind:?}"), || {
            statistics(&manifest, kind, &kept)
        })?;
        println!("  {n_rounds} rounds, grid step {:e}", transform.grid_step());
        let budget_bytes = match flag("--spill") {
            None => usize::MAX,
            Some(_) => 0,
        };
        let store = BlockStore::new(Budget::new(budget_bytes), &std::env::temp_dir());
        let total = timed("ingest", || fill(&manifest, &transform, &store, &kept))?;
        println!("  sum of squares {}", total.total_squares);
        let n_rows = timed("all blocks from the store", || count(&manifest, &store))?;
        println!(
            "  {n_rows} rows, {} bytes resident, {} spilled",
            store.resident_bytes(),
            store.spilled_bytes()
        );
    }
    Ok(())
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    result
}

fn shards(manifest: &Manifest) -> Vec<ShardId> {
    (0..manifest.n_shards()).map(ShardId).collect()
}

fn statistics(
    manifest: &Manifest,
    kind: TransformKind,
    kept: &Kept,
) -> Result<(Transform, u32), DataError> {
    let mut planner = StatsPlanner::new(manifest, kind);
    let mut n_rounds = 0;
    while let Some(request) = planner.request() {
        let zero = || StatsPartial::zero(&request);
        let of_shard = |shard: &ShardId| {
            let mut partial = zero();
            let known = kept.lock().expect("no panic").remove(shard);
            let tiles = match known {
                Some(tiles) => {
                    let each = tiles.iter();
                    each.for_each(|block| block.add_statistics(&request, &mut partial));
                    tiles
                }
                None => {
                    let mut tiles = Vec::new();
                    let statistics = Some((&request, &mut partial));
                    read_tiles(manifest, *shard, Spread::Here, statistics, &mut |block| {
                        tiles.push(block);
                        Ok::<_, DataError>(())
                    })?;
                    tiles
                }
            };
            kept.lock().expect("no panic").insert(*shard, tiles);
            Ok(partial)
        };
        let merged = |mut a: StatsPartial, b: StatsPartial| {
            a.merge(&b);
            Ok::<_, DataError>(a)
        };
        let shards = shards(manifest);
        let total = shards.par_iter().map(of_shard).try_reduce(zero, merged)?;
        let round = request.round;
        timed(&format!("  absorb round {round}"), || planner.absorb(total))?;
        n_rounds += 1;
    }
    Ok((planner.finish()?, n_rounds))
}

fn fill(
    manifest: &Manifest,
    transform: &Transform,
    store: &BlockStore,
    kept: &Kept,
) -> Result<IngestPartial, DataError> {
    let zero = || IngestPartial::zero(manifest.n_features());
    let of_shard = |shard: &ShardId| {
        let mut partial = zero();
        let mut ids = BTreeMap::new();
        let projection = Projection {
            features: vec![false; manifest.n_features()],
            ids: true,
            value: true,
        };
        read_shard(manifest, *shard, &projection, &mut |raw: &mut RawBlock| {
            ids.insert(raw.id, std::mem::take(&mut raw.ids));
            Ok::<_, DataError>(())
        })?;
        let tiles = kept.lock().expect("no panic").remove(shard);
        for block in tiles.into_iter().flatten() {
            let id = block.id();
            let grid = block.place(&ids[&id], None, transform, &mut partial)?;
            store.insert(id, grid)?;
        }
        Ok(partial)
    };
    let merged = |mut a: IngestPartial, b: IngestPartial| {
        a.merge(&b);
        Ok::<_, DataError>(a)
    };
    let shards = shards(manifest);
    shards.par_iter().map(of_shard).try_reduce(zero, merged)
}

fn count(manifest: &Manifest, store: &BlockStore) -> Result<usize, DataError> {
    let blocks: Vec<BlockId> = (0..manifest.n_blocks()).map(BlockId).collect();
    let n_rows = |id: &BlockId| store.get(*id).map(|block| block.block.n_rows());
    blocks.par_iter().map(n_rows).sum()
}
