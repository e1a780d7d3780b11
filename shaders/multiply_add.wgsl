// Multiplies and adds in registers: how fast the device computes.
//
// An invocation owns 16 chains of N_STEPS multiply-adds each, none of which waits for another. `seeds` is read; `results` is written, so
// that nothing is left out. No twin: a control for the benchmark.

@group(0) @binding(0) var<storage, read> seeds: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> results: array<vec4<f32>>;

const N_STEPS = 4096u;

@compute @workgroup_size(256)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = seeds[0];
    let term = seeds[1];
    var a = seeds[2] + vec4<f32>(f32(id.x));
    var b = a + term;
    var c = b + term;
    var d = c + term;
    for (var step = 0u; step < N_STEPS; step += 8u) {
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
    }
    results[id.x] = a + b + c + d;
}
