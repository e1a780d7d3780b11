//! Errors as gRPC has them, with all that we know of them in the details.

use std::error::Error;

use clientele_data::ErrorKind;
use clientele_protocol::TaskError;
use prost::Message;
use tonic::{Code, Status};

use crate::{WireError, v1};

/// Texts of an error are cut here, and causes left out after so many: all of it travels in HTTP headers, which are small.
const MAX_TEXT_BYTES: usize = 512;
const MAX_CAUSES: usize = 6;

/// The error as a status; [`to_error`] gives it back whole, unless it was too long for a header.
pub fn from_error(error: &TaskError) -> Status {
    let shortened = TaskError {
        kind: error.kind,
        message: shortened(&error.message),
        causes: error
            .causes
            .iter()
            .take(MAX_CAUSES)
            .map(|cause| shortened(cause))
            .collect(),
        hint: error.hint.as_deref().map(shortened),
    };
    let details = v1::TaskError::from(&shortened).encode_to_vec();
    Status::with_details(code(error.kind), shortened.message, details.into())
}

/// The error that a status carries; what others say (a proxy, gRPC itself) by its code.
pub fn to_error(status: &Status) -> TaskError {
    let ours = v1::TaskError::decode(status.details())
        .ok()
        .and_then(|message| TaskError::try_from(message).ok())
        // Details of others may happen to be readable.
        .filter(|error| code(error.kind) == status.code());
    ours.unwrap_or_else(|| {
        let mut causes = Vec::new();
        let mut cause = status.source();
        while let Some(inner) = cause {
            causes.push(inner.to_string());
            cause = inner.source();
        }
        let message = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        TaskError {
            // What has a cause here was not said by the other side: the connection broke, with whatever code for that.
            kind: match causes.is_empty() {
                true => kind(status.code()),
                false => ErrorKind::Transient,
            },
            message: message.to_owned(),
            causes,
            hint: None,
        }
    })
}

impl From<WireError> for Status {
    /// Who asks in a way that cannot be read asks wrongly.
    fn from(error: WireError) -> Self {
        from_error(&TaskError {
            kind: ErrorKind::Usage,
            message: error.to_string(),
            causes: error.source().iter().map(ToString::to_string).collect(),
            hint: None,
        })
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Bug => Code::Internal,
        ErrorKind::Usage => Code::InvalidArgument,
        ErrorKind::Input => Code::FailedPrecondition,
        ErrorKind::Changed => Code::Aborted,
        ErrorKind::Transient => Code::Unavailable,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::Limit => Code::ResourceExhausted,
        ErrorKind::Auth => Code::PermissionDenied,
    }
}

fn kind(code: Code) -> ErrorKind {
    match code {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => {
            ErrorKind::Transient
        }
        // Of others it is said when two got in each other's way.
        Code::Aborted => ErrorKind::Transient,
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Auth,
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented => {
            ErrorKind::Usage
        }
        Code::ResourceExhausted => ErrorKind::Limit,
        Code::AlreadyExists => ErrorKind::Conflict,
        Code::FailedPrecondition => ErrorKind::Input,
        Code::Ok | Code::Internal | Code::DataLoss => ErrorKind::Bug,
    }
}

fn shortened(text: &str) -> String {
    match text.len() <= MAX_TEXT_BYTES {
        true => text.to_owned(),
        false => format!(
            "{}...",
            &text[..text.floor_char_boundary(MAX_TEXT_BYTES - 3)]
        ),
    }
}
