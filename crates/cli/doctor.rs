//! `clientele doctor`: what this machine can compute with, and whether it computes right.

use clientele_kmeans::cpu::{CpuBackend, Kernel};
use clientele_kmeans::{Backend, Block, Centroids, Partial, reference};
use serde_json::{Value, json};

use crate::args::{DoctorArgs, Format};
use crate::failure::Failure;

/// Lists and checks every kernel and adapter.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let kernels: Vec<(Kernel, bool)> = Kernel::available()
        .into_iter()
        .map(|kernel| (kernel, kernel_is_right(kernel)))
        .collect();
    let adapters = clientele_gpu::doctor();
    match args.format {
        Format::Json => print_json(&kernels, &adapters)?,
        Format::Text => print_text(&kernels, &adapters),
    }
    match kernels.iter().find(|(_, right)| !right) {
        Some((kernel, _)) => Err(Failure::bug(format!(
            "the kernel {kernel:?} computes wrongly on this processor"
        ))),
        None => Ok(()),
    }
}

type Adapters = [(
    clientele_gpu::AdapterReport,
    Result<(), clientele_gpu::OpenError>,
)];

fn print_text(kernels: &[(Kernel, bool)], adapters: &Adapters) {
    println!("CPU kernels ({} threads)", crate::machine::n_cores());
    for (nth, (kernel, right)) in kernels.iter().enumerate() {
        let used = if nth == 0 { ", used" } else { "" };
        println!(
            "  {:<15} self-test {}{used}",
            name(*kernel),
            verdict(*right)
        );
    }
    println!("GPU adapters");
    if adapters.is_empty() {
        println!("  none (Vulkan, Metal or DirectX 12); the CPU gives the same result");
    }
    for (adapter, opened) in adapters {
        println!(
            "  {} ({}, {})",
            adapter.name, adapter.backend, adapter.device_type
        );
        println!("    driver     {}", adapter.driver);
        println!(
            "    limits     binding {} MiB, buffer {} MiB, workgroup {} KiB, {} invocations, {} storage buffers",
            adapter.max_binding_bytes >> 20,
            adapter.max_buffer_bytes >> 20,
            adapter.max_workgroup_bytes >> 10,
            adapter.max_workgroup_invocations,
            adapter.max_storage_buffers
        );
        println!(
            "    subgroups  {} to {}",
            adapter.subgroup_sizes.0, adapter.subgroup_sizes.1
        );
        println!(
            "    features   {}",
            if adapter.features.is_empty() {
                "-".into()
            } else {
                adapter.features.join(", ")
            }
        );
        match opened {
            Ok(()) if adapter.is_software => {
                println!(
                    "    self-test  right; slower than our CPU kernels, so used only with --backend gpu"
                );
            }
            Ok(()) => println!("    self-test  right"),
            Err(error) => println!("    self-test  NOT USED: {error}"),
        }
    }
}

fn print_json(kernels: &[(Kernel, bool)], adapters: &Adapters) -> Result<(), Failure> {
    let kernels: Vec<Value> = kernels
        .iter()
        .map(|(kernel, right)| json!({"name": name(*kernel), "self_test": verdict(*right)}))
        .collect();
    let adapters: Vec<Value> = adapters
        .iter()
        .map(|(adapter, opened)| {
            json!({
                "name": adapter.name,
                "driver": adapter.driver,
                "backend": adapter.backend,
                "device_type": adapter.device_type,
                "is_software": adapter.is_software,
                "max_binding_bytes": adapter.max_binding_bytes,
                "max_buffer_bytes": adapter.max_buffer_bytes,
                "max_workgroup_bytes": adapter.max_workgroup_bytes,
                "max_workgroup_invocations": adapter.max_workgroup_invocations,
                "max_storage_buffers": adapter.max_storage_buffers,
                "subgroup_sizes": [adapter.subgroup_sizes.0, adapter.subgroup_sizes.1],
                "features": adapter.features,
                "self_test": opened.as_ref().map_or_else(ToString::to_string, |()| "right".into()),
            })
        })
        .collect();
    crate::summary::print_json(
        &json!({"threads": crate::machine::n_cores(), "kernels": kernels, "adapters": adapters}),
    )
}

fn name(kernel: Kernel) -> String {
    CpuBackend::with_kernel(kernel).map_or_else(|| format!("{kernel:?}"), |backend| backend.name())
}

fn verdict(right: bool) -> &'static str {
    if right { "right" } else { "WRONG" }
}

/// One awkward block, with ties and duplicate centroids, against the definition.
fn kernel_is_right(kernel: Kernel) -> bool {
    let (n_rows, n_features) = (997, 7);
    let value = |i: usize| ((i * 7_919 + i * i * 31) % 4_001) as i32 - 2_000;
    let rows: Vec<Vec<i32>> = (0..n_rows)
        .map(|row| {
            (0..n_features)
                .map(|f| value(row * n_features + f))
                .collect()
        })
        .collect();
    let mut starts = rows[..9].to_vec();
    starts.push(starts[0].clone());
    let centroids = Centroids::new(n_features, starts.concat());
    let Ok(block) = Block::from_rows(0, n_features, &rows.concat(), (0..n_rows as u64).collect())
    else {
        return false;
    };
    let Some(backend) = CpuBackend::with_kernel(kernel) else {
        return false;
    };
    let Ok(answer) = backend.pass(&block, std::slice::from_ref(&centroids), None) else {
        return false;
    };
    let labels = reference::labels(&rows, &starts);
    let (counts, sums) = reference::partial(&rows, &labels, starts.len(), n_features);
    let as_counts =
        |partial: &Partial| partial.counts.iter().map(|n| *n as i64).collect::<Vec<_>>();
    answer
        .iter()
        .all(|partial| as_counts(partial) == counts && partial.sums == sums.concat())
}
