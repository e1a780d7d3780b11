//! The gate opens for the shaders as they are, and closes for shaders that were made worse.

use std::process::{Command, Output};

/// One, two and four rows an invocation, in registers and in storage; CI runs the gate on all shapes.
const A_FEW: [&str; 2] = ["--only", "8,17,32,100"];

fn gate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shader-gate"))
        .args(arguments)
        .output()
        .unwrap()
}

/// What was printed, or `None` when there is no RADV here and none is required.
fn printed(output: &Output) -> Option<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    if text.starts_with("skipped") {
        println!("{text}");
        return None;
    }
    Some(text)
}

#[test]
fn the_shaders_are_as_good_as_the_baseline_and_meet_their_targets() {
    let output = gate(&A_FEW);
    let Some(text) = printed(&output) else { return };
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" 0 failures"), "{text}");
}

#[test]
fn squares_of_differences_instead_of_the_bias_form_do_not_pass() {
    let output = gate(&["--plant-regression", A_FEW[0], A_FEW[1]]);
    let Some(text) = printed(&output) else { return };
    assert_eq!(output.status.code(), Some(9), "{text}");
    assert!(
        text.contains("worse: navi21") || text.contains("more"),
        "{text}"
    );
    assert!(text.contains("vector instructions a term"), "{text}");
}

#[test]
fn a_baseline_that_knows_less_is_not_taken_for_agreement() {
    let folder = std::env::temp_dir().join(format!("shader-gate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let at = folder.to_str().unwrap();
    let written = gate(&["--write-baseline", "--baselines", at, A_FEW[0], A_FEW[1]]);
    if printed(&written).is_some() {
        assert_eq!(written.status.code(), Some(0));
        let file = std::fs::read_dir(&folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let text = std::fs::read_to_string(&file).unwrap();
        let shorter: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("d=17\t"))
            .collect();
        std::fs::write(&file, shorter.join("\n")).unwrap();
        let output = gate(&["--baselines", at, A_FEW[0], A_FEW[1]]);
        assert_eq!(output.status.code(), Some(9));
        assert!(printed(&output).unwrap().contains("is not in the baseline"));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_unknown_argument_is_refused() {
    let output = gate(&["--fast"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown argument `--fast`"));
}
