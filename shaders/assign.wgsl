// Assigns rows to their nearest centroids, for many candidates at once, and sums them up by cluster.
//
// A workgroup owns up to GROUP_ROWS rows of one block, an invocation LANES neighbouring rows of a tile of 16, on behalf of
// `candidates_a_chunk` candidates one after the other. `rows`, `norms`, `groups`, `candidates` and `centroids` are read; `totals`,
// `uncertain` and `labels` are written.
// Twin: crates/kmeans/src/cpu/assign.rs. Host side: crates/gpu/src/pipeline/assign.rs.
//
// A template: crates/gpu/src/shaders/ puts the constants of a shape in front (N_FEATURES, LANES, LINE = 16 / LANES, INVOCATIONS,
// FLUSH_LANES, and the types Rows, Flags and Indices of LANES components) and replaces each line that begins with `//@` by
// unrolled text.
//
// The trick: |x - c|^2 / 2 = |x|^2 / 2 + (|c|^2 / 2 - x.c), and the first term does not depend on c. Scores are rounded, so a row
// counts only when no other score comes within the proven bound of its best; all others go to a list with their values, not
// into the sums, and the host settles them in exact integers.

struct Params {
    // Of this dispatch: its first group, and the candidates from `first_candidate` to before `end_candidate`.
    first_group: u32,
    first_candidate: u32,
    end_candidate: u32,
    candidates_a_chunk: u32,
    // Rows that the list of uncertain ones has room for.
    n_entries: u32,
    // Words of 32 candidates a group has in the rejections at the front of `totals`, and the word where the sums begin.
    rejection_words: u32,
    first_cell_word: u32,
    // Rows that a candidate has in `labels`.
    label_stride: u32,
    // N_FEATURES, not known to the compiler: loops that are seldom entered stay loops, or their unrolled loads would take the
    // registers of those that are not.
    n_features: u32,
    // 0, not known to the compiler.
    zero: u32,
    padding_1: u32,
    padding_2: u32,
}

// Up to GROUP_ROWS neighbouring rows.
struct Group {
    // Where the first tile begins in `rows`, in vectors, and in `norms`.
    first_vector: u32,
    first_norm: u32,
    n_rows: u32,
    // Its first row in the block.
    first_row: u32,
}

struct Candidate {
    n_clusters: u32,
    // Tiles of 8 clusters, and whether a tile of 4 follows.
    n_tiles: u32,
    has_half_tile: u32,
    // Where it begins in `centroids`, in vec4, and in the sums.
    first_vector: u32,
    first_cell: u32,
    // Features that are summed at a time in workgroup memory; 0: too many clusters, rows go straight to storage.
    window: u32,
    // Cells from one copy of a cluster's sums to the next, and from one cluster to the next; copies less one.
    copy_stride: u32,
    cluster_stride: u32,
    copy_mask: u32,
    bound_slope: f32,
    bound_base: f32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Feature f of vector v of tile t at (t * N_FEATURES + f) * LINE + v: a line of 16 rows a feature.
@group(0) @binding(1) var<storage, read> rows: array<Rows>;
// For each tile a number not below the Euclidean norm of any of its rows.
@group(0) @binding(2) var<storage, read> norms: array<f32>;
@group(0) @binding(3) var<storage, read> groups: array<Group>;
@group(0) @binding(4) var<storage, read> candidates: array<Candidate>;
// For each tile a line of biases |c|^2 / 2, then a line of values -c for each feature; a line is as long as the tile.
@group(0) @binding(5) var<storage, read> centroids: array<vec4<f32>>;
// Entries asked for, entries written, rejections; five words of others; a bit for each rejected (group, candidate); then for each
// candidate [n_clusters x (N_FEATURES + 1)] integers of 64 bits, low half first: sums, and the number of rows behind them.
@group(0) @binding(6) var<storage, read_write> totals: array<atomic<u32>>;
// Entries of candidate, row in the block, and the row's values.
@group(0) @binding(7) var<storage, read_write> uncertain: array<u32>;
//@ label binding

const N_ASKED = 0u;
const N_WRITTEN = 1u;
const N_REJECTED = 2u;
const FIRST_REJECTION_WORD = 8u;

const SLAB_CELLS = 2048u;
const MAX_SLAB_CLUSTERS = 256u;
// Larger than any score, which is below 2^57 in magnitude.
const FAR = 3.0e38;
// 1.5 x 2^23: the bits of q + ROUNDER are those of ROUNDER plus q, for any |q| < 2^22.
const ROUNDER = 12582912.0;
const ROUNDER_BITS = 0x4b400000u;
const NO_ROOM = 0xffffffffu;

// Sums of the group's rows, modulo 2^32: 512 values below 2^22 stay below 2^31. Several copies of each cluster's, so that
// neighbouring rows of one cluster do not queue for one cell.
var<workgroup> slab: array<atomic<u32>, SLAB_CELLS>;
// Rows behind them, copies together.
var<workgroup> slab_counts: array<atomic<u32>, MAX_SLAB_CLUSTERS>;
var<workgroup> n_uncertain: atomic<u32>;
var<workgroup> reserved_entry: u32;

// Room for the group's uncertain rows: all of it or none, in which case the host comes back for group and candidate. The number
// asked for only grows, so what was granted is the front of the list.
fn reserve(group_idx: u32, candidate_idx: u32) {
    let n = atomicExchange(&n_uncertain, 0u);
    reserved_entry = 0u;
    if (n > 0u) {
        var end = NO_ROOM;
        if (atomicLoad(&totals[N_ASKED]) <= params.n_entries) {
            reserved_entry = atomicAdd(&totals[N_ASKED], n);
            end = reserved_entry + n;
        }
        if (end <= params.n_entries) {
            atomicMax(&totals[N_WRITTEN], end);
        } else {
            reserved_entry = NO_ROOM;
            let word = FIRST_REJECTION_WORD + group_idx * params.rejection_words + candidate_idx / 32u;
            atomicOr(&totals[word], 1u << (candidate_idx % 32u));
            atomicAdd(&totals[N_REJECTED], 1u);
        }
    }
}

//@ value of a lane

fn list_uncertain(candidate_idx: u32, row: u32, first_vector: u32, lane: u32, entry: u32) {
    let at = entry * (N_FEATURES + 2u);
    uncertain[at] = candidate_idx;
    uncertain[at + 1u] = row;
    for (var f = 0u; f < params.n_features; f += 1u) {
        uncertain[at + 2u + f] = bitcast<u32>(value(first_vector + f * LINE, lane));
    }
}

// 64-bit addition in two halves; the carry of each single addition is seen by the invocation that caused it.
fn add_to_totals(cell: u32, value: u32) {
    let word = params.first_cell_word + 2u * cell;
    let before = atomicAdd(&totals[word], value);
    let carry = select(0u, 1u, before + value < before);
    let high = bitcast<u32>(bitcast<i32>(value) >> 31u) + carry;
    if (high != 0u) { atomicAdd(&totals[word + 1u], high); }
}

// Clears the sums of the window that begins at feature `first`, and hands them over unless the group was rejected.
fn flush(candidate: Candidate, first: u32, lid: u32) {
    let width = min(candidate.window, N_FEATURES - first);
    let has_room = reserved_entry != NO_ROOM;
    for (var cluster = lid / FLUSH_LANES; cluster < candidate.n_clusters; cluster += INVOCATIONS / FLUSH_LANES) {
        let count = atomicLoad(&slab_counts[cluster]);
        if (count > 0u) {
            let total = candidate.first_cell + cluster * (N_FEATURES + 1u);
            for (var column = lid % FLUSH_LANES; column < width; column += FLUSH_LANES) {
                var value = 0u - count * ROUNDER_BITS;
                var cell = cluster * candidate.cluster_stride + column;
                for (var copy = 0u; copy <= candidate.copy_mask; copy += 1u) {
                    value += atomicExchange(&slab[cell], 0u);
                    cell += candidate.copy_stride;
                }
                if (value != 0u && has_room) { add_to_totals(total + first + column, value); }
            }
            if (first == 0u && lid % FLUSH_LANES == 0u && has_room) { add_to_totals(total + N_FEATURES, count); }
        }
    }
}

// With very many clusters a group's rows seldom share one: each value goes to the totals by itself.
fn sum_one(candidate: Candidate, first_vector: u32, lane: u32, label: u32) {
    let total = candidate.first_cell + label * (N_FEATURES + 1u);
    for (var f = 0u; f < params.n_features; f += 1u) {
        let rounded = value(first_vector + f * LINE, lane) + ROUNDER;
        add_to_totals(total + f, bitcast<u32>(rounded) - ROUNDER_BITS);
    }
    add_to_totals(total + N_FEATURES, 1u);
}

@compute @workgroup_size(INVOCATIONS)
fn assign(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let group_idx = params.first_group + workgroup.x;
    let group = groups[group_idx];
    // Invocations past the end repeat the last tile and are then left out, so that all of them meet at the barriers.
    let row_tile = min(lid / LINE, (group.n_rows - 1u) / 16u);
    let first_vector = group.first_vector + row_tile * (N_FEATURES * LINE) + lid % LINE;
    let first_row = lid * LANES;
    //@ is_row
    let norm = norms[group.first_norm + row_tile];
    //@ rows
    // 0 again, and to the compiler another in each invocation: what is read at a place it has a part in goes to vector registers. Graphics
    // Core Next takes one scalar operand an instruction, and a multiply-add of a centroid's first feature to its bias would have two.
    let zero = min(lid, params.zero);
    for (var e = lid; e < SLAB_CELLS; e += INVOCATIONS) { atomicStore(&slab[e], 0u); }
    for (var e = lid; e < MAX_SLAB_CLUSTERS; e += INVOCATIONS) { atomicStore(&slab_counts[e], 0u); }
    if (lid == 0u) { atomicStore(&n_uncertain, 0u); }
    workgroupBarrier();

    let begin = params.first_candidate + workgroup.y * params.candidates_a_chunk;
    let end = min(begin + params.candidates_a_chunk, params.end_candidate);
    for (var candidate_idx = begin; candidate_idx < end; candidate_idx += 1u) {
        let candidate = candidates[candidate_idx];
        let bound = candidate.bound_slope * norm + candidate.bound_base;
        var best = Rows(FAR);
        // The tile of the best, and three bits of which of its centroids that is.
        var tile = Indices(0u);
        var bit0 = Flags(false);
        var bit1 = Flags(false);
        var bit2 = Flags(false);
        var doubt = Flags(false);
        var at = candidate.first_vector;
        for (var tile_idx = 0u; tile_idx < candidate.n_tiles; tile_idx += 1u) {
            //@ tile of 8
        }
        if (candidate.has_half_tile != 0u) {
            let tile_idx = candidate.n_tiles;
            //@ tile of 4
        }
        var label = 8u * tile + select(Indices(0u), Indices(4u), bit2) + select(Indices(0u), Indices(2u), bit1)
            + select(Indices(0u), Indices(1u), bit0);

        //@ write labels
        let certain = is_row & !doubt;
        let unsettled = is_row & doubt;
        //@ count uncertain
        let is_in_slab = candidate.window > 0u;
        let copy = (lid & candidate.copy_mask) * candidate.copy_stride;
        let cells = label * Indices(candidate.cluster_stride) + Indices(copy);
        if (is_in_slab) {
            //@ count certain
        }
        let step = select(N_FEATURES, candidate.window, is_in_slab);
        for (var first = 0u; first < N_FEATURES; first += step) {
            if (is_in_slab) {
                //@ sum
            }
            workgroupBarrier();
            if (first == 0u) {
                if (lid == 0u) { reserve(group_idx, candidate_idx); }
                workgroupBarrier();
                if (reserved_entry != NO_ROOM) {
                    //@ list uncertain
                    if (!is_in_slab) {
                        //@ sum straight
                    }
                }
            }
            if (is_in_slab) { flush(candidate, first, lid); }
            workgroupBarrier();
        }
        for (var e = lid; e < MAX_SLAB_CLUSTERS; e += INVOCATIONS) { atomicStore(&slab_counts[e], 0u); }
    }
}
