// Looks at the rows whose nearest centroid may have changed since they were last looked at, moves their values from sum to sum, and notes how
// far the centroids may travel before they must be looked at again.
//
// A workgroup owns up to GROUP_ROWS rows of one block on behalf of one candidate; an invocation owns rows that must be looked at, one after the
// other. `rows`, `norms`, `groups` and `centroids` are read; `marks`, `sums`, `totals` and `uncertain` are read and written.
// Twin: crates/kmeans/src/cpu/memory.rs. Host side: crates/gpu/src/pipeline/remember.rs.
//
// A template: crates/gpu/src/shaders/ puts the constants of a shape in front (N_FEATURES, LINE = 16 and the type Rows of one row) and
// replaces each line that begins with `//@` by unrolled text.
//
// The trick: sums are those of the rows at their labels, so they are right however few rows are looked at, as long as no row is left out
// whose label would change. Whether one may be is decided in whole numbers; what they come from is rounded to the safe side. Rows that the
// device is not sure of have no label and are in no sum: they go to a list, and the host settles them in every pass.

struct Params {
    // Of this dispatch: its first group.
    first_group: u32,
    // Rows that the list of uncertain ones has room for.
    n_entries: u32,
    n_clusters: u32,
    // Tiles of 8 clusters, and whether a tile of 4 follows.
    n_tiles: u32,
    has_half_tile: u32,
    // Columns that are summed at a time in workgroup memory; N_FEATURES values and the number of rows make a cluster's columns.
    window: u32,
    // Where in `marks` the bounds of groups begin.
    first_bound: u32,
    // How far centroids have come, in units: of a row that may have belonged to any cluster, rounded down.
    most: u32,
    bound_slope: f32,
    bound_base: f32,
    // Not below the norm of any centroid; distances are off by `slop` times the square of its sum with the row's norm.
    largest_norm: f32,
    slop: f32,
    // Units a grid step, rounded down.
    per_unit: f32,
    // N_FEATURES, not known to the compiler: loops that are seldom entered stay loops.
    n_features: u32,
    // 0, not known to the compiler; see assign.wgsl.
    zero: u32,
    padding: u32,
    // For each cluster, how far centroids have come for its rows: rounded down in the low half, rounded up in the high half.
    travel: array<vec4<u32>, 64>,
}

// Up to GROUP_ROWS neighbouring rows of one block.
struct Group {
    // In `norms`; its values and marks follow from that.
    first_tile: u32,
    n_rows: u32,
    // Where the block's sums begin in `sums`.
    first_cell: u32,
    // What is known of it: KNOWN, or STALE, or UNKNOWN.
    state: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Value f of row r of tile t at (t * N_FEATURES + f) * LINE + r.
@group(0) @binding(1) var<storage, read> rows: array<Rows>;
// For each tile a number not below the Euclidean norm of any of its rows.
@group(0) @binding(2) var<storage, read> norms: array<f32>;
@group(0) @binding(3) var<storage, read> groups: array<Group>;
// As in assign.wgsl.
@group(0) @binding(4) var<storage, read> centroids: array<vec4<f32>>;
// For each row its label in the low half and its bound in the high half; from `first_bound` on, at each group's first tile, its bound.
@group(0) @binding(5) var<storage, read_write> marks: array<u32>;
// For each block [n_clusters x (N_FEATURES + 1)] integers of 64 bits, low half first: the sums of the rows with that label, and their number.
@group(0) @binding(6) var<storage, read_write> sums: array<atomic<u32>>;
// Its head is that of assign.wgsl: entries asked for, entries written, rejections, groups and rows looked at, and a word of rejections a group.
@group(0) @binding(7) var<storage, read_write> totals: array<atomic<u32>>;
// Entries as in assign.wgsl.
@group(0) @binding(8) var<storage, read_write> uncertain: array<u32>;

const GROUP_ROWS = 512u;
const INVOCATIONS = 256u;

const N_ASKED = 0u;
const N_WRITTEN = 1u;
const N_REJECTED = 2u;
const N_GROUPS_LOOKED_AT = 3u;
const N_ROWS_LOOKED_AT = 4u;
const FIRST_REJECTION_WORD = 8u;

// Labels and bounds hold.
const KNOWN = 0u;
// Labels hold, and bounds are of another epoch.
const STALE = 1u;

const NO_LABEL = 0xffffu;
const LARGEST_BOUND = 0xffffu;
const SLAB_CELLS = 2048u;
// Larger than any score, which is below 2^57 in magnitude.
const FAR = 3.0e38;
const NO_ROOM = 0xffffffffu;
// Of a root's own size: what is taken off the difference of two, for all that a device may do wrong about roots.
const ROOT_SLOP = 1.52587890625e-5;

// Rows to look at: the row in the low half, the label it had in the high half.
var<workgroup> listed: array<u32, GROUP_ROWS>;
// Their new marks.
var<workgroup> found: array<u32, GROUP_ROWS>;
// What rows that moved add to the sums.
var<workgroup> slab: array<atomic<u32>, SLAB_CELLS>;
var<workgroup> n_listed: atomic<u32>;
var<workgroup> n_changed: atomic<u32>;
var<workgroup> n_uncertain: atomic<u32>;
// How far centroids may still travel before a row of the group must be looked at.
var<workgroup> least_left: atomic<u32>;
// What one invocation says to all.
var<workgroup> said: u32;

fn travelled(label: u32) -> vec2<u32> {
    let both = params.travel[label / 4u][label % 4u];
    return vec2<u32>(both & 0xffffu, both >> 16u);
}

// What is left of a bound.
fn left_of(bound: u32, label: u32) -> u32 {
    if (label == NO_LABEL) { return 0u; }
    return bound - min(bound, travelled(label).y);
}

// As in assign.wgsl.
fn reserve(group_idx: u32) -> u32 {
    let n = atomicExchange(&n_uncertain, 0u);
    if (n == 0u) { return 0u; }
    if (atomicLoad(&totals[N_ASKED]) <= params.n_entries) {
        let begin = atomicAdd(&totals[N_ASKED], n);
        if (begin + n <= params.n_entries) {
            atomicMax(&totals[N_WRITTEN], begin + n);
            return begin;
        }
    }
    atomicOr(&totals[FIRST_REJECTION_WORD + group_idx], 1u);
    atomicAdd(&totals[N_REJECTED], 1u);
    return NO_ROOM;
}

// As in assign.wgsl.
fn add_to_sums(cell: u32, value: u32) {
    let before = atomicAdd(&sums[2u * cell], value);
    let carry = select(0u, 1u, before + value < before);
    let high = bitcast<u32>(bitcast<i32>(value) >> 31u) + carry;
    if (high != 0u) { atomicAdd(&sums[2u * cell + 1u], high); }
}

// The mark of a row, from all its scores.
fn mark_of(first_vector: u32, norm: f32) -> u32 {
    //@ rows
    //@ square
    let zero = min(first_vector, params.zero);
    var best = FAR;
    var second = FAR;
    var tile = 0u;
    var bit0 = false;
    var bit1 = false;
    var bit2 = false;
    var at = 0u;
    for (var tile_idx = 0u; tile_idx < params.n_tiles; tile_idx += 1u) {
        //@ tile of 8
    }
    if (params.has_half_tile != 0u) {
        let tile_idx = params.n_tiles;
        //@ tile of 4
    }
    let label = 8u * tile + select(0u, 4u, bit2) + select(0u, 2u, bit1) + select(0u, 1u, bit0);
    // Two that are equal spoil the bits, but not the doubt.
    if (second <= best + (params.bound_slope * norm + params.bound_base)) { return NO_LABEL; }
    let size = norm + params.largest_norm;
    let slop = params.slop * (size * size);
    let near = sqrt(max(square + 2.0 * best, 0.0) + slop);
    let far = sqrt(max((square + 2.0 * second) - slop, 0.0));
    let gap = max((far - near) - ROOT_SLOP * far, 0.0);
    let units = u32(min(gap * params.per_unit, f32(LARGEST_BOUND)));
    return label | min(travelled(label).x + units, LARGEST_BOUND) << 16u;
}

@compute @workgroup_size(INVOCATIONS)
fn remember(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let group_idx = params.first_group + workgroup.x;
    let group = groups[group_idx];
    let bound_at = params.first_bound + group.first_tile;
    if (lid == 0u) {
        said = select(0u, 1u, group.state == KNOWN && marks[bound_at] > params.most);
        atomicStore(&n_listed, 0u);
        atomicStore(&n_changed, 0u);
        atomicStore(&n_uncertain, 0u);
        atomicStore(&least_left, LARGEST_BOUND);
    }
    if (workgroupUniformLoad(&said) == 1u) { return; }

    let first_mark = group.first_tile * 16u;
    for (var row = lid; row < group.n_rows; row += INVOCATIONS) {
        var label = NO_LABEL;
        var left = 0u;
        if (group.state <= STALE) {
            let mark = marks[first_mark + row];
            label = mark & 0xffffu;
            left = select(0u, left_of(mark >> 16u, label), group.state == KNOWN);
        }
        if (left == 0u) {
            listed[atomicAdd(&n_listed, 1u)] = row | label << 16u;
        } else {
            atomicMin(&least_left, left);
        }
    }
    workgroupBarrier();
    for (var i = lid; i < atomicLoad(&n_listed); i += INVOCATIONS) {
        let row = listed[i] & 0xffffu;
        let tile = group.first_tile + row / 16u;
        let mark = mark_of(tile * (N_FEATURES * LINE) + row % 16u, norms[tile]);
        found[i] = mark;
        let label = mark & 0xffffu;
        atomicMin(&least_left, left_of(mark >> 16u, label));
        if (label == NO_LABEL) { atomicAdd(&n_uncertain, 1u); }
        if (label != listed[i] >> 16u) { atomicAdd(&n_changed, 1u); }
    }
    workgroupBarrier();

    // All of the group's uncertain rows find room, or nothing of it counts and the host comes back for it.
    if (lid == 0u) { said = reserve(group_idx); }
    let reserved = workgroupUniformLoad(&said);
    if (reserved == NO_ROOM) { return; }
    if (lid == 0u) { said = atomicLoad(&n_changed); }
    if (workgroupUniformLoad(&said) > 0u) {
        for (var cell = lid; cell < SLAB_CELLS; cell += INVOCATIONS) { atomicStore(&slab[cell], 0u); }
        for (var first = 0u; first < N_FEATURES + 1u; first += params.window) {
            workgroupBarrier();
            let end = min(first + params.window, params.n_features + 1u);
            for (var i = lid; i < atomicLoad(&n_listed); i += INVOCATIONS) {
                let row = listed[i] & 0xffffu;
                let from_label = listed[i] >> 16u;
                let to_label = found[i] & 0xffffu;
                if (from_label != to_label) {
                    let tile = group.first_tile + row / 16u;
                    let vector = tile * (N_FEATURES * LINE) + row % 16u;
                    for (var column = first; column < end; column += 1u) {
                        var value = 1u;
                        if (column < N_FEATURES) { value = bitcast<u32>(i32(rows[vector + column * LINE])); }
                        if (from_label != NO_LABEL) {
                            atomicSub(&slab[from_label * params.window + (column - first)], value);
                        }
                        if (to_label != NO_LABEL) { atomicAdd(&slab[to_label * params.window + (column - first)], value); }
                    }
                }
            }
            workgroupBarrier();
            for (var cell = lid; cell < params.n_clusters * params.window; cell += INVOCATIONS) {
                let value = atomicExchange(&slab[cell], 0u);
                if (value != 0u) {
                    let column = first + cell % params.window;
                    add_to_sums(group.first_cell + cell / params.window * (N_FEATURES + 1u) + column, value);
                }
            }
        }
    }

    for (var i = lid; i < atomicLoad(&n_listed); i += INVOCATIONS) {
        let row = listed[i] & 0xffffu;
        marks[first_mark + row] = found[i];
        if ((found[i] & 0xffffu) == NO_LABEL) {
            let tile = group.first_tile + row / 16u;
            let vector = tile * (N_FEATURES * LINE) + row % 16u;
            let at = (reserved + atomicAdd(&n_uncertain, 1u)) * (N_FEATURES + 2u);
            uncertain[at] = 0u;
            uncertain[at + 1u] = 0u;
            for (var f = 0u; f < params.n_features; f += 1u) {
                uncertain[at + 2u + f] = bitcast<u32>(rows[vector + f * LINE]);
            }
        }
    }
    if (lid == 0u) {
        let left = atomicLoad(&least_left);
        marks[bound_at] = select(params.most + left, 0u, left == 0u);
        atomicAdd(&totals[N_GROUPS_LOOKED_AT], 1u);
        atomicAdd(&totals[N_ROWS_LOOKED_AT], atomicLoad(&n_listed));
    }
}
