//! What goes wrong on purpose comes back as a typed error, and is seen to have happened.

use crate::problem::{Problem, Values, open};
use clientele_gpu::{
    AdapterReport, Fault, GpuBackend, OpenError, OpenOptions, adapters, doctor, self_test,
};
use clientele_kmeans::{Backend, BackendError};

fn with(fault: Fault) -> OpenOptions {
    OpenOptions {
        fault: Some(fault),
        ..OpenOptions::default()
    }
}

#[test]
fn a_device_lost_in_mid_run_is_an_error_for_this_and_every_later_pass() {
    let problem = Problem::new(Values::Blobs, 2_000, 8, &[2, 5]);
    for passes in [0, 2] {
        let Some(gpu) = open(with(Fault::LoseDeviceAfter { passes })) else {
            return;
        };
        for _ in 0..passes {
            problem.compare(&gpu, None).unwrap();
        }
        assert_eq!(gpu.faults_fired(), 0);
        for _ in 0..3 {
            let answer = gpu.pass(&problem.block, &problem.candidates, None);
            assert!(
                matches!(answer, Err(BackendError::DeviceLost { .. })),
                "{answer:?}"
            );
        }
        assert_eq!(gpu.faults_fired(), 1);
    }
    // The adapter is as good as before.
    let again = open(OpenOptions::default()).unwrap();
    problem.compare(&again, None).unwrap();
}

#[test]
fn a_wrong_answer_to_the_self_test_is_refused() {
    if open(OpenOptions::default()).is_none() {
        return;
    }
    let refused = GpuBackend::open(&OpenOptions {
        allow_software: true,
        ..with(Fault::WrongSelfTest)
    });
    let Err(OpenError::SelfTest { expected, got, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(expected, self_test::EXPECTED);
    assert_ne!(expected, got);
}

#[test]
fn out_of_memory_is_answered_by_cutting_finer() {
    // 8 MiB of rows, and no buffer above 3 MiB.
    let problem = Problem::new(Values::Blobs, 65_536, 32, &[2, 7]);
    let Some(gpu) = open(with(Fault::RefuseBuffersAbove { n_bytes: 3 << 20 })) else {
        return;
    };
    problem.compare(&gpu, None).unwrap();
    assert!(gpu.faults_fired() > 0);
    let fired = gpu.faults_fired();
    problem.compare(&gpu, None).unwrap();
    assert_eq!(gpu.faults_fired(), fired, "the finer cut is kept");
}

#[test]
fn out_of_memory_for_the_finest_cut_is_an_error_and_the_device_goes_on() {
    let Some(gpu) = open(with(Fault::RefuseBuffersAbove { n_bytes: 1 << 20 })) else {
        return;
    };
    let large = Problem::new(Values::Blobs, 600, 4_096, &[2]);
    let answer = gpu.pass(&large.block, &large.candidates, None);
    assert!(
        matches!(answer, Err(BackendError::OutOfMemory { .. })),
        "{answer:?}"
    );
    assert!(gpu.faults_fired() > 0);
    Problem::new(Values::Blobs, 600, 40, &[2])
        .compare(&gpu, None)
        .unwrap();
}

#[test]
fn an_adapter_that_is_not_there_is_named_with_those_that_are() {
    let wanted = "no adapter is called this".to_owned();
    let refused = GpuBackend::open(&OpenOptions {
        adapter: Some(wanted.clone()),
        ..OpenOptions::default()
    });
    let names: Vec<String> = adapters().into_iter().map(|a| a.name).collect();
    let expected = if names.is_empty() {
        OpenError::NoAdapter
    } else {
        OpenError::NoSuchAdapter { wanted, names }
    };
    assert_eq!(refused.map(|gpu| gpu.name()).unwrap_err(), expected);
}

#[test]
fn software_adapters_are_opened_only_when_asked_for() {
    let software: Vec<_> = adapters().into_iter().filter(|a| a.is_software).collect();
    if software.is_empty() {
        println!("skipped: no software adapter");
    }
    for adapter in software {
        let options = OpenOptions {
            adapter: Some(adapter.name.clone()),
            ..OpenOptions::default()
        };
        let refused = GpuBackend::open(&options).map(|gpu| gpu.name());
        assert!(
            matches!(refused, Err(OpenError::OnlySoftware { .. })),
            "{refused:?}"
        );
        let opened = GpuBackend::open(&OpenOptions {
            allow_software: true,
            ..options
        });
        assert_eq!(opened.unwrap().adapter().name, adapter.name);
    }
}

#[test]
fn the_doctor_reports_every_adapter_and_finds_well_what_opens() {
    let reports = doctor();
    let adapters = adapters();
    assert_eq!(
        reports.iter().map(|(report, _)| report).collect::<Vec<_>>(),
        adapters.iter().collect::<Vec<_>>()
    );
    if let Some(gpu) = open(OpenOptions::default()) {
        let is_well = |(report, opened): &(AdapterReport, Result<(), OpenError>)| {
            report == gpu.adapter() && opened.is_ok()
        };
        assert!(reports.iter().any(is_well), "{reports:?}");
    }
}
