mod isa;
mod spirv;
mod vulkan;
use clientele_gpu::shaders::*;
fn main() {
    let c = vulkan::Compiler::open().unwrap();
    for d in std::env::args().skip(1) {
        let d: usize = d.parse().unwrap();
        let shape = AssignShape {
            n_features: d,
            wants_labels: false,
        };
        let text = shape.wgsl();
        let s = spirv::compile(&text, "assign").unwrap_or_else(|e| panic!("{e}"));
        let r = c.compile(&s, c"assign", 9, true).unwrap();
        let p = isa::Program::parse(&r.assembly);
        println!(
            "{d:4} lanes {} term {:?} sum {:.2} vgpr {} waves {} lds {} spills {} scratch {}",
            shape.lanes(),
            p.vector_a_term(&shape),
            p.vector_a_sum(),
            r.statistic("VGPRs"),
            r.statistic("Subgroups per SIMD"),
            r.statistic("LDS size"),
            r.statistic("Spilled VGPRs") + r.statistic("Spilled SGPRs"),
            r.statistic("Scratch size")
        );
    }
}
