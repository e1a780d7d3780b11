//! The first artefact of a run: which files, which columns, and how they are cut, pinned before a row is read.

mod plan;

use clientele_kmeans::BLOCK_ROWS;
use serde::{Deserialize, Serialize};

use crate::input::{self, Place};
use crate::schema::ColumnType;
use crate::source::{Footer, Source, Unusable};
use crate::stores::Stores;
use crate::{Change, DataError, Location};

pub(crate) use plan::arrow_metadata;

/// Rows of a shard, at most: whole row groups up to here; a larger row group is cut into runs of blocks. Large enough that answers
/// and output parts are few, small enough that a million customers keep several workers busy.
pub const SHARD_ROWS: u64 = (SHARD_BLOCKS * BLOCK_ROWS) as u64;
const SHARD_BLOCKS: usize = 4;

/// A block, numbered in the order of files, row groups and rows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct BlockId(pub u32);

/// A shard, numbered in the order of files, row groups and rows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ShardId(pub u32);

/// Which columns are features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// These, in this order.
    Named(Vec<String>),
    /// Every column of a numeric type or Boolean except the id, in the order of the first file.
    AllNumeric,
}

/// What to do with nulls (and NaN, which counts as null) in features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullPolicy {
    /// Put the lower median of the column in their place, and count them.
    #[default]
    Impute,
    /// End the run.
    Fail,
    /// Leave out the row, in the statistics as everywhere.
    Drop,
}

/// What the user asks for.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Files, folders and patterns; see [`crate::input::expand`].
    pub inputs: Vec<String>,
    /// Column that names the customer; without it rows are known by their number.
    pub id: Option<String>,
    /// Features.
    pub columns: Columns,
    /// What to do with nulls in features.
    pub nulls: NullPolicy,
    /// Column with what a customer is worth; not a feature unless it is named as one.
    pub value: Option<String>,
}

/// A column and its type, the same in all files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
}

/// A pinned input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// Size.
    pub size_bytes: u64,
    /// Last modification, in nanoseconds since 1970, where the file system knows. On a disk that machines share it is the server's,
    /// the same for all.
    pub modified_ns: Option<u64>,
    /// Names the version of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// BLAKE3 of the footer, its length and magic included, in hexadecimal.
    pub footer_hash: String,
    /// Rows of each row group.
    pub row_groups: Vec<u64>,
}

/// Up to [`BLOCK_ROWS`] consecutive rows of one row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Index of the file in the manifest.
    pub file_idx: usize,
    /// Row group in the file.
    pub row_group: usize,
    /// First row, counted in the row group.
    pub start_row: usize,
    /// Rows.
    pub n_rows: usize,
    /// First row, counted over all files.
    pub first_row: u64,
}

/// A run of blocks: the unit of placement, of retry, and of one output part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardInfo {
    /// First block.
    pub first_block: u32,
    /// Blocks.
    pub n_blocks: u32,
    /// Rows.
    pub n_rows: u64,
}

/// Input files, columns, blocks and shards. In JSON the blocks and shards are left out: they follow from the row groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Pinned", into = "Pinned")]
pub struct Manifest {
    pinned: Pinned,
    blocks: Vec<BlockInfo>,
    shards: Vec<ShardInfo>,
    /// What this process opens files with.
    stores: Stores,
}

/// Whatever the stores are.
impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.pinned == other.pinned
    }
}

impl Eq for Manifest {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pinned {
    n_rows: u64,
    id: Option<Column>,
    value: Option<Column>,
    nulls: NullPolicy,
    features: Vec<Column>,
    files: Vec<FileInfo>,
}

impl Manifest {
    /// Opens every file's footer, checks that all hold the columns in one type, and cuts the rows into blocks and shards.
    ///
    /// # Errors
    /// When inputs name no files, files are not readable Parquet (all of them are listed), columns are missing, of different
    /// types or not numeric, or there are no rows.
    pub fn plan(spec: &TableSpec) -> Result<Self, DataError> {
        let places = input::expand(&spec.inputs)?.into_iter().map(Place::Path);
        Self::of(spec, places.collect(), Stores::default())
    }

    /// As [`Manifest::plan`], of files in stores: each input is a [`Location`], as text.
    ///
    /// # Errors
    /// As [`Manifest::plan`]; [`DataError::BadName`], [`DataError::UnknownStore`], [`DataError::LeavesStore`],
    /// [`DataError::Store`].
    pub fn plan_in(spec: &TableSpec, stores: &Stores) -> Result<Self, DataError> {
        let inputs = spec.inputs.iter().map(|text| text.parse());
        let inputs: Vec<Location> = inputs.collect::<Result<_, _>>()?;
        let places = input::expand_in(stores, &inputs)?;
        let places = places.into_iter().map(Place::Location).collect();
        Self::of(spec, places, stores.clone())
    }

    /// Lets a manifest that came from elsewhere open its files.
    ///
    /// # Errors
    /// [`DataError::OutsideStores`] when it names a file by its path: nobody else says what is read on this machine;
    /// [`DataError::UnknownStore`].
    pub fn attach(mut self, stores: &Stores) -> Result<Self, DataError> {
        for file in self.files() {
            match &file.place {
                Place::Location(location) => stores.get(location).map(|_| ())?,
                Place::Path(path) => {
                    return Err(DataError::OutsideStores {
                        path: path.clone(),
                        root: None,
                    });
                }
            }
        }
        self.stores = stores.clone();
        Ok(self)
    }

    fn of(spec: &TableSpec, places: Vec<Place>, stores: Stores) -> Result<Self, DataError> {
        let mut manifest = Self::try_from(plan::resolve(spec, places, &stores)?)?;
        manifest.stores = stores;
        let n_files = manifest.files().len();
        match manifest.n_rows() {
            0 => Err(DataError::NoRows { n_files }),
            _ => Ok(manifest),
        }
    }

    /// BLAKE3 of its JSON: what tells two inputs apart.
    pub fn hash(&self) -> blake3::Hash {
        crate::hash_json(&self.pinned)
    }

    /// Rows of all files.
    pub fn n_rows(&self) -> u64 {
        self.pinned.n_rows
    }

    /// Features.
    pub fn n_features(&self) -> usize {
        self.pinned.features.len()
    }

    /// Shards; their ids count from 0.
    pub fn n_shards(&self) -> u32 {
        self.shards.len() as u32
    }

    /// Blocks; their ids count from 0.
    pub fn n_blocks(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Whether customers are named by a column.
    pub fn has_id(&self) -> bool {
        self.pinned.id.is_some()
    }

    /// The column that names the customer.
    pub fn id(&self) -> Option<&Column> {
        self.pinned.id.as_ref()
    }

    /// The column with what a customer is worth.
    pub fn value(&self) -> Option<&Column> {
        self.pinned.value.as_ref()
    }

    /// Features, in order.
    pub fn features(&self) -> &[Column] {
        &self.pinned.features
    }

    /// What happens to nulls in features.
    pub fn nulls(&self) -> NullPolicy {
        self.pinned.nulls
    }

    /// Input files, in order.
    pub fn files(&self) -> &[FileInfo] {
        &self.pinned.files
    }

    /// Blocks, in the order of their ids.
    pub fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    /// Shards, in the order of their ids.
    pub fn shards(&self) -> &[ShardInfo] {
        &self.shards
    }

    /// One shard.
    ///
    /// # Errors
    /// [`DataError::Unknown`].
    pub fn shard(&self, id: ShardId) -> Result<ShardInfo, DataError> {
        let found = self.shards.get(id.0 as usize).copied();
        found.ok_or(DataError::Unknown {
            what: "shard",
            id: id.0,
        })
    }

    /// The blocks of one shard; none for an unknown one.
    pub fn shard_blocks(&self, id: ShardId) -> impl ExactSizeIterator<Item = BlockId> + use<> {
        let shard = self.shards.get(id.0 as usize);
        let range = shard.map_or(0..0, |s| s.first_block..s.first_block + s.n_blocks);
        range.map(BlockId)
    }

    /// Where a shard lies, for people: file and row group of its first row.
    pub fn describe_shard(&self, id: ShardId) -> String {
        let first = self.shard_blocks(id).next();
        let Some(block) = first.and_then(|block| self.blocks.get(block.0 as usize)) else {
            return format!("shard {}", id.0);
        };
        let path = self.pinned.files[block.file_idx].place.shown();
        format!("row group {} of `{}`", block.row_group, path.display())
    }

    /// Checks that a file is still the one that was planned: size, time of modification, ETag, footer.
    ///
    /// # Errors
    /// [`DataError::InputChanged`], saying how; [`DataError::Io`] when it cannot be opened for another reason.
    pub fn verify_file(&self, file_idx: usize) -> Result<(), DataError> {
        self.open_file(file_idx).map(|_| ())
    }

    pub(crate) fn open_file(&self, file_idx: usize) -> Result<(Source, Footer), DataError> {
        let planned = &self.pinned.files[file_idx];
        let source = self.open_unchanged(file_idx)?;
        match source.footer() {
            Ok(footer) if footer.hash.to_hex().as_str() == planned.footer_hash => {
                Ok((source, footer))
            }
            Err(Unusable::Way(error)) => Err(error),
            _ => Err(changed(planned, Change::Footer)),
        }
    }

    /// As [`Manifest::verify_file`] but without the footer.
    pub(crate) fn open_unchanged(&self, file_idx: usize) -> Result<Source, DataError> {
        let planned = &self.pinned.files[file_idx];
        let source = Source::open(&planned.place, &self.stores, planned.etag.as_deref());
        let source = source.map_err(|error| match error {
            DataError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                changed(planned, Change::Gone)
            }
            other => other,
        })?;
        let found = source.size_bytes();
        if found != planned.size_bytes {
            let planned_bytes = planned.size_bytes;
            return Err(changed(
                planned,
                Change::Size {
                    planned: planned_bytes,
                    found,
                },
            ));
        }
        if source.modified_ns() != planned.modified_ns {
            return Err(changed(planned, Change::Modified));
        }
        Ok(source)
    }
}

fn changed(planned: &FileInfo, source: Change) -> DataError {
    DataError::InputChanged {
        path: planned.place.shown(),
        source,
    }
}

impl From<Manifest> for Pinned {
    fn from(manifest: Manifest) -> Self {
        manifest.pinned
    }
}

impl TryFrom<Pinned> for Manifest {
    type Error = DataError;

    fn try_from(mut pinned: Pinned) -> Result<Self, DataError> {
        let blocks = cut_blocks(&pinned.files)?;
        pinned.n_rows = blocks.iter().map(|block| block.n_rows as u64).sum();
        let shards = cut_shards(&blocks);
        Ok(Self {
            pinned,
            blocks,
            shards,
            stores: Stores::default(),
        })
    }
}

fn cut_blocks(files: &[FileInfo]) -> Result<Vec<BlockInfo>, DataError> {
    let mut blocks = Vec::new();
    let mut first_row = 0;
    for (file_idx, file) in files.iter().enumerate() {
        for (row_group, &group_rows) in file.row_groups.iter().enumerate() {
            let too_many = DataError::TooMany {
                what: "rows in a row group",
                found: group_rows,
                limit: u64::from(u32::MAX),
            };
            let group_rows = u32::try_from(group_rows).map_err(|_| too_many)? as usize;
            for start_row in (0..group_rows).step_by(BLOCK_ROWS) {
                let n_rows = (group_rows - start_row).min(BLOCK_ROWS);
                blocks.push(BlockInfo {
                    file_idx,
                    row_group,
                    start_row,
                    n_rows,
                    first_row,
                });
                first_row += n_rows as u64;
            }
        }
    }
    let (found, limit) = (blocks.len() as u64, u64::from(u32::MAX));
    if found > limit {
        return Err(DataError::TooMany {
            what: "blocks",
            found,
            limit,
        });
    }
    Ok(blocks)
}

/// Packs whole row groups until the next would exceed [`SHARD_ROWS`]; a row group above that is cut at it first.
fn cut_shards(blocks: &[BlockInfo]) -> Vec<ShardInfo> {
    let mut shards: Vec<ShardInfo> = Vec::new();
    let mut first_block = 0;
    for group in blocks.chunk_by(|a, b| (a.file_idx, a.row_group) == (b.file_idx, b.row_group)) {
        for run in group.chunks(SHARD_BLOCKS) {
            let n_blocks = run.len() as u32;
            let n_rows: u64 = run.iter().map(|block| block.n_rows as u64).sum();
            match shards.last_mut() {
                Some(shard) if shard.n_rows + n_rows <= SHARD_ROWS => {
                    shard.n_blocks += n_blocks;
                    shard.n_rows += n_rows;
                }
                _ => shards.push(ShardInfo {
                    first_block,
                    n_blocks,
                    n_rows,
                }),
            }
            first_block += n_blocks;
        }
    }
    shards
}
