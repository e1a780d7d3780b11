//! How a command ends badly: fact, cause, way out, and an exit code.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clientele_coordinator::FitError;
use clientele_data::{DataError, ErrorKind};
use clientele_features::FeatureError;
use clientele_gpu::OpenError;
use clientele_proto::security::{CertificateError, SecurityError};
use clientele_protocol::{SpecError, TaskError};
use clientele_worker::WorkerError;

/// What the user is told, and the shell.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    fact: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure of class `kind`.
    pub fn new(kind: ErrorKind, fact: impl Into<String>) -> Self {
        Self {
            code: kind.exit_code(),
            fact: fact.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Wrong arguments or config.
    pub fn usage(fact: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, fact)
    }

    /// A fault of this program.
    pub fn bug(fact: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, fact)
            .hint("this is a fault of clientele; please report it with the command")
    }

    /// Adds the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says which file the fact is about, as the outermost cause.
    pub fn while_reading(mut self, path: &Path) -> Self {
        self.causes.insert(
            0,
            format!("it was found while reading `{}`", path.display()),
        );
        self
    }

    /// Adds `error` and what lies beneath it as causes.
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(sources(error));
        self
    }

    /// Adds what lies beneath `error` as causes.
    pub fn because_of_sources(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.extend(sources(error));
        self
    }

    /// Prints to standard error.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.fact);
        for cause in &self.causes {
            eprintln!("  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            eprintln!("  hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

/// Everything beneath `error`, outermost first, without repetitions.
fn sources(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = inner.source();
    }
    causes
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self {
            code: error.kind().exit_code(),
            fact: error.to_string(),
            causes: sources(&error),
            hint: error.hint(),
        }
    }
}

impl From<FeatureError> for Failure {
    fn from(error: FeatureError) -> Self {
        Self {
            code: error.kind().exit_code(),
            fact: error.to_string(),
            causes: sources(&error),
            hint: error.hint(),
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self {
            code: error.kind.exit_code(),
            fact: error.message,
            causes: error.causes,
            hint: error.hint,
        }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        FitError::from(error).into()
    }
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        Self {
            kind: ErrorKind::from_exit_code(failure.code).unwrap_or(ErrorKind::Bug),
            message: failure.fact,
            causes: failure.causes,
            hint: failure.hint,
        }
    }
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        Self {
            code: error.kind().exit_code(),
            fact: error.to_string(),
            causes: sources(&error),
            hint: error.hint(),
        }
    }
}

impl From<SecurityError> for Failure {
    fn from(error: SecurityError) -> Self {
        Self {
            code: error.kind().exit_code(),
            fact: error.to_string(),
            causes: sources(&error),
            hint: error.hint(),
        }
    }
}

impl From<FitError> for Failure {
    fn from(error: FitError) -> Self {
        let Some(kind) = error.kind() else {
            return Self::bug(error.to_string());
        };
        let causes = match &error {
            FitError::Task(task) => task.causes.clone(),
            other => sources(other),
        };
        Self {
            code: kind.exit_code(),
            fact: error.to_string(),
            causes,
            hint: error.hint(),
        }
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Gpu(error) => error.into(),
            threads @ WorkerError::Threads { .. } => {
                Self::new(ErrorKind::Transient, threads.to_string()).because_of_sources(&threads)
            }
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self {
            code: ErrorKind::Usage.exit_code(),
            fact: error.to_string(),
            causes: sources(&error),
            hint: Some(
                "`clientele doctor` shows what there is; `--backend cpu` needs no GPU".into(),
            ),
        }
    }
}
