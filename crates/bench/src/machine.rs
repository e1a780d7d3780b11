//! Which machine this is, as far as it tells and as far as a buyer wants to know.

use crate::Machine;

impl Machine {
    /// This one, of which the process may use `n_cores`.
    pub fn this(n_cores: usize) -> Self {
        Self {
            cpu: cpu_model()
                .unwrap_or_else(|| format!("a processor of type {}", std::env::consts::ARCH)),
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            n_cores,
        }
    }
}

#[cfg(target_os = "linux")]
fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned()).filter(|model| !model.is_empty())
}

#[cfg(target_os = "macos")]
fn cpu_model() -> Option<String> {
    let mut sysctl = std::process::Command::new("/usr/sbin/sysctl");
    let output = sysctl
        .args(["-n", "machdep.cpu.brand_string"])
        .output()
        .ok()?;
    let model = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(model).filter(|model| !model.is_empty())
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn cpu_model() -> Option<String> {
    std::env::var("PROCESSOR_IDENTIFIER").ok()
}
