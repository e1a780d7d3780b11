//! What can be wrong with data and disks, as facts with numbers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use crate::manifest::BlockId;
use crate::objects;
use crate::schema::NotNumeric;

/// What an error means for whoever started the run. The numbers are the exit codes of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A fault of the program.
    Bug = 1,
    /// The question is wrong.
    Usage = 2,
    /// The data are wrong.
    Input = 3,
    /// The data changed after they were planned.
    Changed = 4,
    /// The same question may succeed later.
    Transient = 5,
    /// Something else is in the way.
    Conflict = 6,
    /// Larger than what is possible.
    Limit = 7,
    /// Not allowed to.
    Auth = 8,
}

impl ErrorKind {
    /// Exit code of a process that ends with this error.
    pub fn exit_code(self) -> u8 {
        self as u8
    }

    /// The class of an exit code.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        let all = [
            Self::Bug,
            Self::Usage,
            Self::Input,
            Self::Changed,
            Self::Transient,
            Self::Conflict,
            Self::Limit,
            Self::Auth,
        ];
        all.into_iter().find(|kind| kind.exit_code() == code)
    }
}

/// Why a file is not one of ours to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// A column and how many of its values are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnCount {
    /// The column.
    pub column: String,
    /// Values, by what they are: `("nulls", 12)`. Zeros are left out.
    pub counts: Vec<(&'static str, u64)>,
}

/// How a file differs from the one that was planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// It is gone.
    #[error("it is gone")]
    Gone,
    /// Its size.
    #[error("size_bytes={found}, planned size_bytes={planned}")]
    Size {
        /// When it was planned.
        planned: u64,
        /// Now.
        found: u64,
    },
    /// Its time of modification.
    #[error("it was written to, though its size is the same")]
    Modified,
    /// Its ETag.
    #[error("it was replaced: its ETag is another one")]
    Replaced,
    /// Its footer.
    #[error("its footer is another one, though its size is the same")]
    Footer,
}

/// Everything that ends a stage of this crate.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// An input that does not exist.
    #[error("no such file or folder: `{}`", path.display())]
    NoSuchFile {
        /// As given.
        path: PathBuf,
    },
    /// A pattern that cannot be read as one.
    #[error("`{pattern}` is not a file pattern")]
    BadGlob {
        /// As given.
        pattern: String,
        /// Where it goes wrong.
        source: glob::PatternError,
    },
    /// A pattern without a file.
    #[error("no file matches `{pattern}`")]
    GlobWithoutMatch {
        /// As given.
        pattern: String,
    },
    /// A folder without Parquet files.
    #[error("folder `{}` holds no *.parquet file", path.display())]
    EmptyFolder {
        /// As given.
        path: PathBuf,
    },
    /// No input at all.
    #[error("no input files are given")]
    NoInputs,
    /// Files that are not readable Parquet; all of them.
    #[error("{} of {n_files} files cannot be read as Parquet{}", files.len(), list_files(files))]
    BadFiles {
        /// Each of them.
        files: Vec<BadFile>,
        /// Files looked at.
        n_files: usize,
    },
    /// A column that a file does not have.
    #[error("column `{column}` is missing in `{}`", path.display())]
    MissingColumn {
        /// The column.
        column: String,
        /// The first file without it.
        path: PathBuf,
        /// Columns of that file with similar names, most similar first.
        nearest: Vec<String>,
    },
    /// A column of different types in two files.
    #[error("column `{column}` is {found} in `{}` and {expected} in `{}`", path.display(), expected_path.display())]
    ColumnTypeDiffers {
        /// The column.
        column: String,
        /// The file that differs.
        path: PathBuf,
        /// Its type there.
        found: String,
        /// The first file.
        expected_path: PathBuf,
        /// Its type there.
        expected: String,
    },
    /// A feature that is not a number.
    #[error("column `{column}` cannot be a feature")]
    NotAFeature {
        /// The column.
        column: String,
        /// Its type.
        source: NotNumeric,
        /// Some columns that can be features.
        numeric: Vec<String>,
    },
    /// A value column that is not a number.
    #[error("column `{column}` cannot be the value of a customer")]
    NotAValue {
        /// The column.
        column: String,
        /// Its type.
        source: NotNumeric,
    },
    /// An id that is neither integer nor text.
    #[error(
        "column `{column}` cannot be the id: its type is {data_type}; ids are integers or text"
    )]
    NotAnId {
        /// The column.
        column: String,
        /// Its type.
        data_type: String,
    },
    /// A column asked for twice.
    #[error("column `{column}` is asked for twice")]
    ColumnTwice {
        /// The column.
        column: String,
    },
    /// The id asked for as a feature.
    #[error("column `{column}` is the id and cannot be a feature as well")]
    IdIsFeature {
        /// The column.
        column: String,
    },
    /// No column can be a feature.
    #[error("`{}` has no numeric column", path.display())]
    NoFeatures {
        /// The first file.
        path: PathBuf,
    },
    /// Too many of something.
    #[error("{what}={found} is above the limit of {limit}")]
    TooMany {
        /// What is counted: `n_features`.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A table without rows.
    #[error("the input holds no rows (n_files={n_files})")]
    NoRows {
        /// Files.
        n_files: usize,
    },
    /// No row without nulls.
    #[error("no rows are left: each of the {n_rows} rows has a null in some feature")]
    AllDropped {
        /// Rows read.
        n_rows: u64,
    },
    /// A file that is not what was planned.
    #[error("`{}` changed after it was planned", path.display())]
    InputChanged {
        /// The file.
        path: PathBuf,
        /// How.
        source: Change,
    },
    /// A row group that cannot be decoded.
    #[error("row group {row_group} of `{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Counted from 0.
        row_group: usize,
        /// What the decoder says.
        source: ParquetError,
    },
    /// Nulls where none are allowed.
    #[error("features have nulls: {}", list_columns(columns))]
    Nulls {
        /// Columns with nulls, in the order of the features.
        columns: Vec<ColumnCount>,
    },
    /// Infinite values.
    #[error("features have infinite values: {}", list_columns(columns))]
    Infinite {
        /// Columns with infinities, in the order of the features.
        columns: Vec<ColumnCount>,
    },
    /// A feature without any value.
    #[error("feature `{column}` has no value in any of {n_rows} rows")]
    NoValues {
        /// The column.
        column: String,
        /// Rows read.
        n_rows: u64,
    },
    /// Customers without an id.
    #[error("id column `{column}` has {n_nulls} nulls in row group {row_group} of `{}`", path.display())]
    NullIds {
        /// The column.
        column: String,
        /// The file.
        path: PathBuf,
        /// Counted from 0.
        row_group: usize,
        /// Nulls in one block of it.
        n_nulls: usize,
    },
    /// Values of customers that do not fit into 1/10,000 of a unit, in 64 bits.
    #[error("value column `{column}` has {n_values} values that are infinite or beyond 922,337,203,685,477 in row group {row_group} of `{}`", path.display())]
    ValueRange {
        /// The column.
        column: String,
        /// The file.
        path: PathBuf,
        /// Counted from 0.
        row_group: usize,
        /// Such values in one block of it.
        n_values: usize,
    },
    /// Reading or writing failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// As a verb: `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A disk that is full.
    #[error("no space is left to {action} `{}`", path.display())]
    DiskFull {
        /// As a verb: `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An output folder that cannot be written to.
    #[error("output folder `{}` cannot be written to", path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A run that exists.
    #[error("`{}` holds a committed run", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is being written to.
    #[error("another process is writing a run to `{}`", path.display())]
    RunBusy {
        /// The folder.
        path: PathBuf,
    },
    /// A folder with other things in it.
    #[error("`{}` is not empty and not a run: it holds `{example}`", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        example: String,
    },
    /// A run that was never finished.
    #[error("`{}` is not a committed run", path.display())]
    NotCommitted {
        /// The folder.
        path: PathBuf,
    },
    /// A run that is not what was committed.
    #[error("`{name}` in `{}` is not what was committed: {reason}", path.display())]
    RunDamaged {
        /// The folder.
        path: PathBuf,
        /// The file in it.
        name: String,
        /// How it differs.
        reason: String,
    },
    /// A store that cannot be one.
    #[error("`{text}` is not a store: {reason}")]
    BadStore {
        /// As given.
        text: String,
        /// Why.
        reason: String,
    },
    /// A store that nobody has named.
    #[error("there is no store `{alias}`")]
    UnknownStore {
        /// Its name.
        alias: String,
        /// Stores that there are.
        known: Vec<String>,
    },
    /// A path that is in no store.
    #[error("`{}` is not in a store", path.display())]
    OutsideStores {
        /// As given.
        path: PathBuf,
        /// The folder that it would have to be below, if there is one.
        root: Option<PathBuf>,
    },
    /// A link out of a store.
    #[error("`{}` leads out of the store at `{}`", path.display(), root.display())]
    LeavesStore {
        /// The file or folder.
        path: PathBuf,
        /// What it must be below.
        root: PathBuf,
    },
    /// An object store that does not do what it is asked for.
    #[error("cannot {action} `{}`", place.display())]
    Store {
        /// As a verb: `read`.
        action: &'static str,
        /// `alias:key`.
        place: PathBuf,
        /// What the store says.
        source: object_store::Error,
    },
    /// A name that would lead out of a folder or store.
    #[error("`{name}` is not a name inside a folder or store")]
    BadName {
        /// The name.
        name: String,
    },
    /// Spilled rows that came back different.
    #[error("block {} came back from the spill file with another checksum", block.0)]
    SpillDamaged {
        /// The block.
        block: BlockId,
    },
    /// Fingerprints that came back different.
    #[error("`{}` holds {found} fingerprints, not {expected}", path.display())]
    FingerprintsDamaged {
        /// The file.
        path: PathBuf,
        /// Fingerprints written.
        expected: u64,
        /// Fingerprints found.
        found: u64,
    },
    /// A block or shard that the manifest or the store does not have.
    #[error("there is no {what} {id}")]
    Unknown {
        /// `block` or `shard`.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// An answer that does not fit the question.
    #[error("statistics of {found} features were answered where {expected} were asked")]
    StatsShape {
        /// Features asked for.
        expected: usize,
        /// Features answered.
        found: usize,
    },
}

impl DataError {
    /// What the error means for whoever started the run.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadGlob { .. }
            | Self::NoInputs
            | Self::ColumnTwice { .. }
            | Self::IdIsFeature { .. }
            | Self::BadName { .. }
            | Self::BadStore { .. }
            | Self::UnknownStore { .. }
            | Self::OutsideStores { .. }
            | Self::Unwritable { .. } => ErrorKind::Usage,
            Self::Store { source, .. } => store_kind(source),
            Self::LeavesStore { .. } => ErrorKind::Auth,
            Self::NoSuchFile { .. }
            | Self::GlobWithoutMatch { .. }
            | Self::EmptyFolder { .. }
            | Self::BadFiles { .. }
            | Self::MissingColumn { .. }
            | Self::ColumnTypeDiffers { .. }
            | Self::NotAFeature { .. }
            | Self::NotAValue { .. }
            | Self::NotAnId { .. }
            | Self::NoFeatures { .. }
            | Self::NoRows { .. }
            | Self::AllDropped { .. }
            | Self::Read { .. }
            | Self::Nulls { .. }
            | Self::Infinite { .. }
            | Self::NoValues { .. }
            | Self::NullIds { .. }
            | Self::ValueRange { .. }
            | Self::NotCommitted { .. } => ErrorKind::Input,
            Self::InputChanged { .. } | Self::RunDamaged { .. } => ErrorKind::Changed,
            Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::SpillDamaged { .. }
            | Self::FingerprintsDamaged { .. } => ErrorKind::Transient,
            Self::RunExists { .. } | Self::RunBusy { .. } | Self::NotARun { .. } => {
                ErrorKind::Conflict
            }
            Self::TooMany { .. } => ErrorKind::Limit,
            Self::Unknown { .. } | Self::StatsShape { .. } => ErrorKind::Bug,
        }
    }

    /// A way out, where one is known.
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::MissingColumn { nearest, .. } => return nearest_hint(nearest),
            Self::NotAFeature { numeric, .. } => return Some(feature_hint(numeric)),
            Self::NoSuchFile { .. } | Self::GlobWithoutMatch { .. } => {
                "give files, folders of *.parquet files, or a quoted pattern such as 'data/*.parquet'"
            }
            Self::EmptyFolder { .. } => {
                "names that start with `.` or `_` are skipped; give other files by name or pattern"
            }
            Self::BadFiles { .. } => "write these files again, or leave them out with a pattern",
            Self::ColumnTypeDiffers { .. } => {
                "cast the column to one type when the files are written"
            }
            Self::NoRows { .. } => "look at what wrote these files: they have columns and no rows",
            Self::NoFeatures { .. } => "let `clientele features` derive numbers from raw tables",
            Self::InputChanged { .. } => "start the run again when nothing writes to its input",
            Self::Read { .. } => "write the file again; what is left of the others may be fine",
            Self::Nulls { .. } => "use `--nulls impute` or `--nulls drop`",
            Self::Infinite { .. } => "replace infinite values by nulls or by a largest value",
            Self::NoValues { .. } => "leave the column out with `--columns`",
            Self::AllDropped { .. } => "use `--nulls impute`, or leave the emptiest columns out",
            Self::NullIds { .. } => "every customer needs an id; filter the others out",
            Self::DiskFull { .. } => "free some space, or choose another folder",
            Self::RunExists { .. } | Self::NotARun { .. } => "choose a new folder with `--out`",
            Self::RunBusy { .. } => "wait for it, or choose another folder with `--out`",
            Self::Unwritable { .. } => "choose a folder you may write to with `--out`",
            Self::BadStore { .. } => {
                "write `--store lake=s3://bucket/prefix` or `--store local=/data`"
            }
            Self::BadName { .. } => {
                "names are relative, divided by `/`, without `.`, `..`, `\\` and `:`"
            }
            Self::UnknownStore { alias, known } => return Some(store_hint(alias, known)),
            Self::OutsideStores { root, .. } => return Some(outside_hint(root.as_deref())),
            Self::LeavesStore { .. } => {
                "put the files themselves into the store, not a link to them"
            }
            Self::Store { source, .. } => return object_hint(source),
            Self::NotCommitted { .. } => {
                "a run without `_COMMITTED` never finished; start it again"
            }
            _ => return None,
        };
        Some(fixed.to_owned())
    }

    /// An object store did not do what it was asked for.
    pub(crate) fn store(
        action: &'static str,
        place: impl Into<PathBuf>,
        source: object_store::Error,
    ) -> Self {
        let place = place.into();
        Self::Store {
            action,
            place,
            source,
        }
    }

    /// Reading or writing failed; a full disk is told apart.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                action,
                path,
                source,
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}

impl fmt::Display for ColumnCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(what, n)| format!("{n} {what}"))
            .collect();
        write!(f, "`{}` ({})", self.column, counts.join(", "))
    }
}

/// What is left of an error after every attempt.
fn store_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error;
    match error {
        // Of a file that may be missing nobody asks in this way: the bucket is.
        Error::NotFound { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => ErrorKind::Usage,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorKind::Auth,
        Error::AlreadyExists { .. } => ErrorKind::Conflict,
        Error::Precondition { .. } | Error::NotModified { .. } => ErrorKind::Changed,
        error => match objects::status(error) {
            Some(401 | 403) => ErrorKind::Auth,
            Some(404) => ErrorKind::Usage,
            _ => ErrorKind::Transient,
        },
    }
}

fn object_hint(error: &object_store::Error) -> Option<String> {
    let hint = match store_kind(error) {
        ErrorKind::Auth => "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
        ErrorKind::Usage => "look at the name of the bucket, and at AWS_ENDPOINT_URL",
        ErrorKind::Transient => {
            "look at AWS_ENDPOINT_URL and the network; without AWS_ACCESS_KEY_ID credentials are asked for there"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn store_hint(alias: &str, known: &[String]) -> String {
    match known {
        [] => format!("name it: `--store {alias}=...`"),
        known => format!(
            "name it: `--store {alias}=...`; there is {}",
            known.join(", ")
        ),
    }
}

fn outside_hint(root: Option<&Path>) -> String {
    match root {
        Some(root) => format!(
            "give a path below `{}`, or start coordinator and workers with `--store local=...` above it",
            root.display()
        ),
        None => "name files as `alias:key`, or add a store called `local`".to_owned(),
    }
}

fn list_columns(columns: &[ColumnCount]) -> String {
    let shown: Vec<String> = columns.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

fn list_files(files: &[BadFile]) -> String {
    files
        .iter()
        .map(|file| format!("\n  `{}`: {}", file.path.display(), file.reason))
        .collect()
}

fn nearest_hint(nearest: &[String]) -> Option<String> {
    let names: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

fn feature_hint(numeric: &[String]) -> String {
    let derive = "let `clientele features` derive it";
    if numeric.is_empty() {
        return derive.to_owned();
    }
    format!("use `--columns {},...`, or {derive}", numeric.join(","))
}
