//! Seconds to plan, to take statistics of and to put on the grid the numeric columns of Parquet files, on one thread, with the
//! answers beside the times: `cargo run --release -p clientele-data --example ingest_speed -- FILE... [--spill]`

use std::time::Instant;

use clientele_data::ingest::{IngestPartial, ingest};
use clientele_data::manifest::BlockId;
use clientele_data::read::{Projection, RawBlock, read_shard};
use clientele_data::stats::{StatsPartial, StatsPlanner};
use clientele_data::store::BlockStore;
use clientele_data::transform::{Transform, TransformKind};
use clientele_data::{Columns, DataError, Manifest, NullPolicy, ShardId, TableSpec};

fn main() -> Result<(), DataError> {
    let (flags, inputs): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|arg| arg.starts_with("--"));
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
        let (transform, n_rounds) = timed(&format!("statistics {kind:?}"), || {
            statistics(&manifest, kind)
        })?;
        println!("  {n_rounds} reads, grid step {:e}", transform.grid_step());
        let budget_bytes = if flags.is_empty() { usize::MAX } else { 0 };
        let store = BlockStore::new(
            clientele_data::store::Budget::new(budget_bytes),
            &std::env::temp_dir(),
        );
        let total = timed("ingest", || fill(&manifest, &transform, &store))?;
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

fn statistics(manifest: &Manifest, kind: TransformKind) -> Result<(Transform, u32), DataError> {
    let mut planner = StatsPlanner::new(manifest, kind);
    let mut n_rounds = 0;
    while let Some(request) = planner.request() {
        let mut total = StatsPartial::zero(&request);
        for shard in (0..manifest.n_shards()).map(ShardId) {
            read_shard(
                manifest,
                shard,
                &request.projection(),
                &mut |raw: &mut RawBlock| {
                    total.add_block(&request, raw);
                    Ok::<_, DataError>(())
                },
            )?;
        }
        planner.absorb(total)?;
        n_rounds += 1;
    }
    Ok((planner.finish()?, n_rounds))
}

fn fill(
    manifest: &Manifest,
    transform: &Transform,
    store: &BlockStore,
) -> Result<IngestPartial, DataError> {
    let mut total = IngestPartial::zero(manifest.n_features());
    for shard in (0..manifest.n_shards()).map(ShardId) {
        read_shard(
            manifest,
            shard,
            &Projection::all(manifest),
            &mut |raw: &mut RawBlock| {
                let block = ingest(raw, transform, &mut total)?;
                store.insert(raw.id, block)
            },
        )?;
    }
    Ok(total)
}

fn count(manifest: &Manifest, store: &BlockStore) -> Result<usize, DataError> {
    let blocks = (0..manifest.n_blocks()).map(BlockId);
    blocks
        .map(|id| store.get(id).map(|block| block.block.n_rows()))
        .sum()
}
