// Assigns the rows of a block to their nearest centroids, for many candidates at once, and sums them up by cluster.
//
// A workgroup owns 512 rows (32 tiles of 16) on behalf of one candidate; an invocation owns four neighbouring rows of a tile, so
// that one feature of theirs is one vec4. `rows` and `centroids` are read; `sums`, `counts`, `uncertain` and `labels` are
// written.
// Twin: crates/kmeans/src/cpu/assign.rs. Host side: crates/gpu/src/pipeline/assign.rs.
//
// The trick: |x - c|^2 / 2 = |x|^2 / 2 + (|c|^2 / 2 - x.c), and the first term does not depend on c. Scores are rounded, so a
// row counts as certain only when its best two are further apart than the proven bound; all others go to a list, not into the
// sums, and the host settles them in exact integers.

struct Params {
    // Of the block.
    n_rows: u32,
    n_features: u32,
    // The rows that `rows` and `tile_norms` hold now: their first row in the block, and how many quads they are.
    first_row: u32,
    n_quads: u32,
    // Of this dispatch, counted from `first_row` in groups of 512 rows.
    first_group: u32,
    // Quads that a candidate has in `labels`; 0 when nobody wants labels.
    label_stride: u32,
    padding_0: u32,
    padding_1: u32,
}

struct Candidate {
    n_clusters: u32,
    // Where it begins in `centroids`, `sums` and `counts`.
    first_line: u32,
    first_cell: u32,
    first_count: u32,
    // Features that the slab holds at a time; 0: too many clusters, rows go straight to storage.
    window: u32,
    bound_slope: f32,
    bound_base: f32,
    padding: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Feature f of the quad q of tile t at (t * n_features + f) * 4 + q.
@group(0) @binding(1) var<storage, read> rows: array<vec4<f32>>;
// For each tile a number not below the Euclidean norm of any of its rows.
@group(0) @binding(2) var<storage, read> tile_norms: array<f32>;
@group(0) @binding(3) var<storage, read> candidates: array<Candidate>;
// A tile of 8 clusters: a line of 8 biases |c|^2 / 2, then a line of 8 values -c for each feature. A line is two vec4.
@group(0) @binding(4) var<storage, read> centroids: array<vec4<f32>>;
// 64-bit integers, low half first, [n_clusters x n_features] for each candidate.
@group(0) @binding(5) var<storage, read_write> sums: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> counts: array<atomic<u32>>;
// How many there are, then candidate << 16 | row. Each pair comes once at most, so the list has room for all.
@group(0) @binding(7) var<storage, read_write> uncertain: array<atomic<u32>>;
// 16 bits a row, a quad each.
@group(0) @binding(8) var<storage, read_write> labels: array<vec2<u32>>;

const INVOCATIONS = 128u;
const SLAB_CELLS = 2048u;
const MAX_SLAB_CLUSTERS = 256u;
const FAR = 3.0e38;

// 512 rows of values below 2^22 stay below 2^31.
var<workgroup> slab: array<atomic<i32>, SLAB_CELLS>;
var<workgroup> slab_counts: array<atomic<u32>, MAX_SLAB_CLUSTERS>;

struct Nearest {
    score: vec4<f32>,
    second: vec4<f32>,
    label: vec4<u32>,
}

fn offer(nearest: ptr<function, Nearest>, scores: vec4<f32>, cluster: u32) {
    (*nearest).second = min((*nearest).second, max((*nearest).score, scores));
    (*nearest).label = select((*nearest).label, vec4<u32>(cluster), scores < (*nearest).score);
    (*nearest).score = min((*nearest).score, scores);
}

fn find_nearest(first_vector: u32, candidate: Candidate) -> Nearest {
    var nearest = Nearest(vec4<f32>(FAR), vec4<f32>(FAR), vec4<u32>(0u));
    var line = candidate.first_line;
    for (var cluster = 0u; cluster < candidate.n_clusters; cluster += 8u) {
        let bias_0 = centroids[2u * line];
        let bias_1 = centroids[2u * line + 1u];
        line += 1u;
        var s0 = vec4<f32>(bias_0.x);
        var s1 = vec4<f32>(bias_0.y);
        var s2 = vec4<f32>(bias_0.z);
        var s3 = vec4<f32>(bias_0.w);
        var s4 = vec4<f32>(bias_1.x);
        var s5 = vec4<f32>(bias_1.y);
        var s6 = vec4<f32>(bias_1.z);
        var s7 = vec4<f32>(bias_1.w);
        for (var f = 0u; f < params.n_features; f += 1u) {
            let x = rows[first_vector + 4u * f];
            let c0 = centroids[2u * line];
            let c1 = centroids[2u * line + 1u];
            line += 1u;
            s0 = fma(x, vec4<f32>(c0.x), s0);
            s1 = fma(x, vec4<f32>(c0.y), s1);
            s2 = fma(x, vec4<f32>(c0.z), s2);
            s3 = fma(x, vec4<f32>(c0.w), s3);
            s4 = fma(x, vec4<f32>(c1.x), s4);
            s5 = fma(x, vec4<f32>(c1.y), s5);
            s6 = fma(x, vec4<f32>(c1.z), s6);
            s7 = fma(x, vec4<f32>(c1.w), s7);
        }
        offer(&nearest, s0, cluster);
        offer(&nearest, s1, cluster + 1u);
        offer(&nearest, s2, cluster + 2u);
        offer(&nearest, s3, cluster + 3u);
        offer(&nearest, s4, cluster + 4u);
        offer(&nearest, s5, cluster + 5u);
        offer(&nearest, s6, cluster + 6u);
        offer(&nearest, s7, cluster + 7u);
    }
    return nearest;
}

fn list_uncertain(candidate_idx: u32, row: u32) {
    let at = atomicAdd(&uncertain[0], 1u) + 1u;
    atomicStore(&uncertain[at], (candidate_idx << 16u) | row);
}

fn add_to_slab(certain: vec4<bool>, cells: vec4<u32>, values: vec4<i32>) {
    if (certain.x) { atomicAdd(&slab[cells.x], values.x); }
    if (certain.y) { atomicAdd(&slab[cells.y], values.y); }
    if (certain.z) { atomicAdd(&slab[cells.z], values.z); }
    if (certain.w) { atomicAdd(&slab[cells.w], values.w); }
}

// 64-bit addition in two halves; the carry of each single addition is seen by the invocation that caused it.
fn add_to_sums(cell: u32, value: i32) {
    let low = bitcast<u32>(value);
    let before = atomicAdd(&sums[2u * cell], low);
    let high = bitcast<u32>(value >> 31u) + select(0u, 1u, before + low < before);
    if (high != 0u) { atomicAdd(&sums[2u * cell + 1u], high); }
}

fn count_in_slab(certain: vec4<bool>, label: vec4<u32>) {
    if (certain.x) { atomicAdd(&slab_counts[label.x], 1u); }
    if (certain.y) { atomicAdd(&slab_counts[label.y], 1u); }
    if (certain.z) { atomicAdd(&slab_counts[label.z], 1u); }
    if (certain.w) { atomicAdd(&slab_counts[label.w], 1u); }
}

// Sums the workgroup's rows in its own memory, as many features at a time as fit, and hands them over.
fn sum_by_slab(candidate: Candidate, lid: u32, first_vector: u32, certain: vec4<bool>, label: vec4<u32>) {
    for (var e = lid; e < SLAB_CELLS; e += INVOCATIONS) { atomicStore(&slab[e], 0); }
    for (var e = lid; e < MAX_SLAB_CLUSTERS; e += INVOCATIONS) { atomicStore(&slab_counts[e], 0u); }
    workgroupBarrier();
    count_in_slab(certain, label);
    for (var first = 0u; first < params.n_features; first += candidate.window) {
        let width = min(candidate.window, params.n_features - first);
        // Tiles begin at different features, so that rows of one cluster do not queue for one cell.
        var f = (lid / 4u) % width;
        for (var i = 0u; i < width; i += 1u) {
            add_to_slab(certain, label * width + f, vec4<i32>(rows[first_vector + 4u * (first + f)]));
            f = select(f + 1u, 0u, f + 1u == width);
        }
        workgroupBarrier();
        for (var e = lid; e < candidate.n_clusters * width; e += INVOCATIONS) {
            let value = atomicExchange(&slab[e], 0);
            if (value != 0) {
                let cell = candidate.first_cell + (e / width) * params.n_features + first + e % width;
                add_to_sums(cell, value);
            }
        }
        workgroupBarrier();
    }
    for (var e = lid; e < candidate.n_clusters; e += INVOCATIONS) {
        let count = atomicLoad(&slab_counts[e]);
        if (count != 0u) { atomicAdd(&counts[candidate.first_count + e], count); }
    }
}

fn sum_one(candidate: Candidate, first_vector: u32, lane: u32, label: u32) {
    atomicAdd(&counts[candidate.first_count + label], 1u);
    let cell = candidate.first_cell + label * params.n_features;
    for (var f = 0u; f < params.n_features; f += 1u) {
        add_to_sums(cell + f, i32(rows[first_vector + 4u * f][lane]));
    }
}

@compute @workgroup_size(128)
fn assign(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let candidate_idx = group.y;
    let candidate = candidates[candidate_idx];
    let quad = (params.first_group + group.x) * INVOCATIONS + lid;
    // Quads past the end repeat the last one and are then left out, so that all invocations meet at the barriers.
    let held_quad = min(quad, params.n_quads - 1u);
    let first_vector = (held_quad / 4u) * params.n_features * 4u + held_quad % 4u;
    let row = vec4<u32>(params.first_row + 4u * quad) + vec4<u32>(0u, 1u, 2u, 3u);
    let is_row = row < vec4<u32>(params.n_rows);

    let nearest = find_nearest(first_vector, candidate);
    let bound = candidate.bound_slope * tile_norms[held_quad / 4u] + candidate.bound_base;
    let is_certain = nearest.second - nearest.score > vec4<f32>(bound);

    let uncertain_lanes = is_row & !is_certain;
    for (var lane = 0u; lane < 4u; lane += 1u) {
        if (uncertain_lanes[lane]) { list_uncertain(candidate_idx, row[lane]); }
    }
    let label_quad = params.first_row / 4u + quad;
    if (label_quad < params.label_stride) {
        let l = nearest.label;
        labels[candidate_idx * params.label_stride + label_quad] = vec2<u32>(l.x | (l.y << 16u), l.z | (l.w << 16u));
    }

    let certain = is_row & is_certain;
    if (candidate.window > 0u) {
        sum_by_slab(candidate, lid, first_vector, certain, nearest.label);
    } else {
        for (var lane = 0u; lane < 4u; lane += 1u) {
            if (certain[lane]) { sum_one(candidate, first_vector, lane, nearest.label[lane]); }
        }
    }
}
