// Adds up the sums of blocks.
//
// An invocation owns one cell of BLOCKS_A_RUN blocks. `blocks` and `sums` are read; `gathered` is added to.
// Twin: `Partial::merge` in crates/kmeans/src/partial.rs. Host side: crates/gpu/src/pipeline/remember.rs.

struct Params {
    n_cells: u32,
    // Of this dispatch, in `blocks`.
    first_block: u32,
    end_block: u32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Where the sums of each block begin.
@group(0) @binding(1) var<storage, read> blocks: array<u32>;
// [n_cells] integers of 64 bits a block, low half first.
@group(0) @binding(2) var<storage, read> sums: array<vec2<u32>>;
// [n_cells] likewise.
@group(0) @binding(3) var<storage, read_write> gathered: array<atomic<u32>>;

const BLOCKS_A_RUN = 16u;

@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let cell = workgroup.x * 64u + lid;
    if (cell >= params.n_cells) { return; }
    var total = vec2<u32>(0u);
    let begin = params.first_block + workgroup.y * BLOCKS_A_RUN;
    let end = min(begin + BLOCKS_A_RUN, params.end_block);
    for (var block = begin; block < end; block += 1u) {
        let value = sums[blocks[block] + cell];
        let low = total.x + value.x;
        total = vec2<u32>(low, total.y + value.y + select(0u, 1u, low < total.x));
    }
    let before = atomicAdd(&gathered[2u * cell], total.x);
    let high = total.y + select(0u, 1u, before + total.x < before);
    if (high != 0u) { atomicAdd(&gathered[2u * cell + 1u], high); }
}
