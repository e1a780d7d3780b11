// Copies a buffer: how fast memory is read and written.
//
// An invocation owns one vec4 at a time, `n_invocations` apart, so that neighbours read neighbours. `source` is read, `copied`
// is written. No twin: a control for the benchmark.

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<f32>>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_workgroups: vec3<u32>) {
    let n_invocations = n_workgroups.x * 256u;
    for (var i = id.x; i < arrayLength(&source); i += n_invocations) {
        copied[i] = source[i];
    }
}
