//! Errors as gRPC has them.

use clientele_data::ErrorKind;
use clientele_proto::WireError;
use clientele_proto::status::{from_error, to_error};
use clientele_protocol::TaskError;
use proptest::prelude::*;
use tonic::{Code, Status};

use crate::generators;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_error_of_ours_survives_whole(error in generators::task_error()) {
        prop_assert_eq!(to_error(&from_error(&error)), error);
    }

    #[test]
    fn details_of_others_are_no_error_of_ours(code in 0..17, details in prop::collection::vec(any::<u8>(), 0..40)) {
        let status = Status::with_details(Code::from(code), "no", details.into());
        to_error(&status);
    }
}

#[test]
fn the_code_of_a_foreign_status_decides() {
    for (code, kind) in [
        (Code::Unavailable, ErrorKind::Transient),
        (Code::Cancelled, ErrorKind::Transient),
        (Code::DeadlineExceeded, ErrorKind::Transient),
        (Code::Unknown, ErrorKind::Transient),
        (Code::Unauthenticated, ErrorKind::Auth),
        (Code::PermissionDenied, ErrorKind::Auth),
        (Code::InvalidArgument, ErrorKind::Usage),
        (Code::NotFound, ErrorKind::Usage),
        (Code::ResourceExhausted, ErrorKind::Limit),
        (Code::AlreadyExists, ErrorKind::Conflict),
        (Code::Internal, ErrorKind::Bug),
    ] {
        let error = to_error(&Status::new(code, "the fact"));
        assert_eq!(
            (error.kind, &*error.message),
            (kind, "the fact"),
            "{code:?}"
        );
        assert!(!to_error(&Status::new(code, "")).message.is_empty());
    }
}

/// `google.rpc.Status { code: 14, message: "try later" }`, which others put into the details, has the fields of ours.
#[test]
fn google_details_are_not_taken_for_ours() {
    for code in 1..=16_u8 {
        let mut details = vec![0x08, code, 0x12, 9];
        details.extend(b"try later");
        let status = Status::with_details(Code::from(i32::from(code)), "busy", details.into());
        let error = to_error(&status);
        assert_eq!(error.kind, to_error(&Status::new(status.code(), "")).kind);
    }
}

#[test]
fn a_long_error_fits_into_a_header() {
    let long = "customers é ".repeat(1_000);
    let status = from_error(&TaskError {
        kind: ErrorKind::Changed,
        message: long.clone(),
        causes: vec![long.clone(); 50],
        hint: Some(long),
    });
    assert!(status.details().len() < 5_000);
    let error = to_error(&status);
    assert_eq!(error.kind, ErrorKind::Changed);
    assert!(error.message.starts_with("customers é ") && error.message.ends_with("..."));
}

#[test]
fn an_unreadable_question_is_a_wrong_question() {
    let status = Status::from(WireError::Missing { field: "fit" });
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "`fit` is missing")
    );
    assert_eq!(to_error(&status).kind, ErrorKind::Usage);
}
