//! Every shape of every shader is text that all the languages of GPUs have words for, with the options wgpu uses.

use std::collections::BTreeMap;

use clientele_gpu::shaders::{self, AssignShape, Flaw, RememberShape};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ResourceBinding, ShaderStage};

/// Bindings a shader has, at most.
const N_BINDINGS: u32 = 9;

fn translate(text: &str, entry_point: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    for (language, write) in [
        ("SPIR-V", to_spirv as fn(&Module, &ModuleInfo, &str) -> _),
        ("MSL", to_msl),
        ("HLSL", to_hlsl),
        ("GLSL", to_glsl),
    ] {
        let written: Result<usize, String> = write(&module, &info, entry_point);
        match written {
            Ok(n) if n > 100 => {}
            Ok(n) => return Err(format!("{language}: only {n} bytes")),
            Err(error) => return Err(format!("{language}: {error}")),
        }
    }
    Ok(())
}

fn policies() -> BoundsCheckPolicies {
    BoundsCheckPolicies {
        index: BoundsCheckPolicy::Unchecked,
        buffer: BoundsCheckPolicy::Unchecked,
        image_load: BoundsCheckPolicy::Unchecked,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

fn bindings() -> impl Iterator<Item = ResourceBinding> {
    (0..N_BINDINGS).map(|binding| ResourceBinding { group: 0, binding })
}

fn to_spirv(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<usize, String> {
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        // What Vulkan always has.
        capabilities: Some([spv::Capability::Shader].into_iter().collect()),
        bounds_check_policies: policies(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry_point.to_owned(),
    };
    let words = spv::write_vec(module, info, &options, Some(&pipeline));
    words
        .map(|words| 4 * words.len())
        .map_err(|error| error.to_string())
}

fn to_msl(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<usize, String> {
    let slot = |idx: u32| u8::try_from(idx).unwrap();
    let resources = msl::EntryPointResources {
        resources: bindings()
            .map(|binding| {
                let target = msl::BindTarget {
                    buffer: Some(slot(binding.binding)),
                    mutable: true,
                    ..Default::default()
                };
                (binding, target)
            })
            .collect(),
        sizes_buffer: Some(slot(N_BINDINGS)),
        ..Default::default()
    };
    let options = msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: BTreeMap::from([(entry_point.to_owned(), resources)]),
        fake_missing_bindings: false,
        bounds_check_policies: policies(),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry_point.to_owned())),
        ..Default::default()
    };
    let (text, written) =
        msl::write_string(module, info, &options, &pipeline).map_err(|error| error.to_string())?;
    for name in written.entry_point_names {
        name.map_err(|error| error.to_string())?;
    }
    Ok(text.len())
}

fn to_hlsl(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<usize, String> {
    let target = |register| hlsl::BindTarget {
        register,
        ..Default::default()
    };
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V5_1,
        binding_map: bindings().map(|b| (b, target(b.binding))).collect(),
        fake_missing_bindings: false,
        special_constants_binding: Some(target(N_BINDINGS)),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry_point.to_owned())),
    };
    let mut text = String::new();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .map_err(|error| error.to_string())?;
    for name in written.entry_point_names {
        name.map_err(|error| error.to_string())?;
    }
    Ok(text.len())
}

fn to_glsl(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<usize, String> {
    let options = glsl::Options {
        version: glsl::Version::new_gles(310),
        binding_map: bindings()
            .map(|b| (b, u8::try_from(b.binding).unwrap()))
            .collect(),
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry_point.to_owned(),
        multiview: None,
    };
    let mut text = String::new();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies())
        .and_then(|mut writer| writer.write())
        .map_err(|error| error.to_string())?;
    Ok(text.len())
}

#[test]
fn every_shape_translates_to_every_language() {
    let shapes = shaders::shipped();
    assert!(shapes.len() > 128);
    for shape in shapes {
        if let Err(error) = translate(&shape.wgsl(), "assign") {
            panic!("{shape:?}: {error}");
        }
    }
    for n_features in shaders::shipped_features() {
        let shape = RememberShape { n_features };
        if let Err(error) = translate(&shape.wgsl(), "remember") {
            panic!("{shape:?}: {error}");
        }
    }
    translate(shaders::GATHER, "gather").unwrap();
    translate(shaders::COPY, "copy").unwrap();
    translate(shaders::MULTIPLY_ADD, "multiply_add").unwrap();
}

#[test]
fn shaders_with_a_mistake_in_them_are_valid_too_and_a_wrong_word_is_noticed() {
    let shape = AssignShape {
        n_features: 9,
        wants_labels: true,
    };
    for flaw in [Flaw::NoDoubt, Flaw::NoCarry, Flaw::DifferenceForm] {
        let text = shape.wgsl_with(flaw);
        assert_ne!(text, shape.wgsl());
        translate(&text, "assign").unwrap();
        let shape = RememberShape { n_features: 9 };
        let text = shape.wgsl_with(flaw);
        assert_ne!(text, shape.wgsl());
        translate(&text, "remember").unwrap();
    }
    let misspelt = shape
        .wgsl()
        .replace("workgroupBarrier();", "workgroupBarier();");
    assert!(translate(&misspelt, "assign").is_err());
}

#[test]
fn the_text_is_unrolled_and_nothing_of_the_template_is_left() {
    for shape in shaders::shipped() {
        let text = shape.wgsl();
        assert!(
            !text
                .lines()
                .any(|line| line.trim_start().starts_with("//@")),
            "{shape:?}"
        );
        assert_eq!(text.contains("labels[first_label"), shape.wants_labels);
        // One multiply-add for each feature and centroid of a tile and of half a tile; in storage, for each feature of a chunk.
        let n_features = match shape.is_in_registers() {
            true => shape.n_features,
            false => shaders::FEATURE_CHUNK + shape.n_features % shaders::FEATURE_CHUNK,
        };
        assert_eq!(text.matches("= fma(").count(), n_features * 12, "{shape:?}");
    }
}
