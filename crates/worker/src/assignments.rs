//! Assignment parts: one Parquet file a shard, the same bytes whoever writes it.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, Float64Array, Int32Array, PrimitiveArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Schema, SchemaRef};
use clientele_data::ids::{Ids, words};
use clientele_data::manifest::ShardId;
use clientele_data::short_hash::{HashWords, SHORT_BYTES, ShortHasher, SumOfHashes};
use clientele_data::{DataError, Folder, NewFile};
use clientele_kmeans::exact::NearestTwo;
use clientele_protocol::RowHashSum;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

/// Writes one part; it appears, whole, with [`PartWriter::finish`].
pub struct PartWriter {
    shown: String,
    schema: SchemaRef,
    columns: ArrowRowGroupWriterFactory,
    file: SerializedFileWriter<NewFile>,
}

/// A block, ready to be appended.
pub struct Encoded(Vec<ArrowColumnChunk>);

impl PartWriter {
    /// A part for `shard` in `dir`, on its way there in `spill_dir` if need be; its ids will be of the type of `ids`.
    pub fn begin(
        dir: Folder,
        spill_dir: &Path,
        shard: ShardId,
        ids: &Ids,
    ) -> Result<Self, DataError> {
        let name = format!("part-{:05}.parquet", shard.0);
        let shown = format!("{dir}/{name}");
        let schema = schema(ids.array().data_type().clone());
        let file = dir.begin(&name, spill_dir)?;
        let (file, columns) = ArrowWriter::try_new(file, schema.clone(), Some(properties()))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|e| failed(&shown, e))?;
        Ok(Self {
            shown,
            schema,
            columns,
            file,
        })
    }

    /// Encodes block `nth` of the part, on any thread: `ids` of its rows as they lie in the input, `rows` of those on the grid, which
    /// are `source_rows` of `ids` when some were dropped. Distances will be in units of `grid_step` times grid steps.
    pub fn encode(
        &self,
        nth: usize,
        ids: &Ids,
        rows: &[NearestTwo],
        source_rows: Option<&[u32]>,
        grid_step: f64,
    ) -> Result<Encoded, DataError> {
        let encode = || -> Result<Encoded, ParquetError> {
            if rows.is_empty() {
                return Ok(Encoded(Vec::new()));
            }
            let arrays = columns(ids, rows, source_rows, grid_step)?;
            let writers = self.columns.create_column_writers(nth)?;
            let fields = self.schema.fields().iter();
            let mut chunks = Vec::with_capacity(writers.len());
            for ((mut writer, field), array) in writers.into_iter().zip(fields).zip(&arrays) {
                for leaf in compute_leaves(field, array)? {
                    writer.write(&leaf)?;
                }
                chunks.push(writer.close()?);
            }
            Ok(Encoded(chunks))
        };
        encode().map_err(|e| failed(&self.shown, e))
    }

    /// Appends a block: a row group of its own, so that what is encoded does not pile up in memory.
    pub fn append(&mut self, block: Encoded) -> Result<(), DataError> {
        let append = || -> Result<(), ParquetError> {
            if block.0.is_empty() {
                return Ok(());
            }
            let mut row_group = self.file.next_row_group()?;
            for column in block.0 {
                column.append_to_row_group(&mut row_group)?;
            }
            row_group.close().map(|_| ())
        };
        append().map_err(|e| failed(&self.shown, e))
    }

    /// Makes the part visible, whole.
    pub fn finish(self) -> Result<(), DataError> {
        let file = self.file.into_inner();
        file.map_err(|e| failed(&self.shown, e))?.finish()
    }
}

fn failed(shown: &str, error: ParquetError) -> DataError {
    // A full disk arrives wrapped; what the system said decides whether trying again makes sense.
    let error = match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => *io,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    };
    DataError::io("write", shown.to_owned(), error)
}

/// In the order of [`schema`].
fn columns(
    ids: &Ids,
    rows: &[NearestTwo],
    source_rows: Option<&[u32]>,
    grid_step: f64,
) -> Result<[ArrayRef; 5], ParquetError> {
    let id_column: ArrayRef = match source_rows {
        None => ids.array().clone(),
        Some(kept) => arrow::compute::take(ids.array(), &UInt32Array::from(kept.to_vec()), None)?,
    };
    let distance = rows.iter().map(|row| (row.d2 as f64).sqrt() * grid_step);
    Ok([
        id_column,
        Arc::new(Int32Array::from_iter_values(
            rows.iter().map(|row| i32::from(row.label)),
        )),
        Arc::new(Float64Array::from_iter_values(distance)),
        of_second::<Int32Type>(rows, |row| row.second.map(i32::from)),
        of_second::<Float64Type>(rows, margin),
    ])
}

/// A column of what rows have that have a second centroid, which either all have or none.
fn of_second<T: ArrowPrimitiveType>(
    rows: &[NearestTwo],
    value: impl Fn(&NearestTwo) -> Option<T::Native>,
) -> ArrayRef {
    if rows.iter().any(|row| row.second.is_none()) {
        return Arc::new(PrimitiveArray::<T>::new_null(rows.len()));
    }
    let values: Vec<T::Native> = rows
        .iter()
        .map(|row| value(row).unwrap_or_default())
        .collect();
    Arc::new(PrimitiveArray::<T>::new(values.into(), None))
}

/// `(d2 - d1) / d2` of a row: how much nearer its centroid is than the second nearest, from 0 (a tie) to 1; none without a second.
pub fn margin(row: &NearestTwo) -> Option<f64> {
    row.second.map(|_| match row.second_d2 {
        0 => 0.0,
        second_d2 => (second_d2 - row.d2) as f64 / second_d2 as f64,
    })
}

/// Sum of the rows' hashes; a row is its id, label and exact distances, whatever file or place it is in.
pub fn hash_rows(ids: &Ids, rows: &[NearestTwo], source_rows: Option<&[u32]>) -> RowHashSum {
    let mut sum = SumOfHashes::default();
    let mut hasher = ShortHasher::default();
    let add = &mut |hashes: &HashWords, n: usize| sum.add(hashes, n);
    let source_row = |row_idx: usize| source_rows.map_or(row_idx, |kept| kept[row_idx] as usize);
    if let Some(integers) = ids.integers() {
        for (row_idx, row) in rows.iter().enumerate() {
            let (words, n_bytes) = row_words(integers.canonical(source_row(row_idx)), row);
            hasher.push_words(words, n_bytes, add);
        }
        hasher.finish(add);
        return RowHashSum::from_le_bytes(sum.to_le_bytes());
    }
    let mut long = RowHashSum::default();
    let mut bytes = Vec::new();
    for (row_idx, row) in rows.iter().enumerate() {
        ids.canonical(source_row(row_idx), &mut bytes);
        bytes.extend_from_slice(&row.label.to_le_bytes());
        bytes.extend_from_slice(&row.d2.to_le_bytes());
        if let Some(second) = row.second {
            bytes.extend_from_slice(&second.to_le_bytes());
            bytes.extend_from_slice(&row.second_d2.to_le_bytes());
        }
        match bytes.len() <= SHORT_BYTES {
            true => hasher.push_bytes(&bytes, add),
            // A long text.
            false => long.add(&blake3::hash(&bytes)),
        }
    }
    hasher.finish(add);
    long.merge(&RowHashSum::from_le_bytes(sum.to_le_bytes()));
    long
}

/// The bytes that are hashed of a row whose id has these canonical bytes, as words, and how many they are.
#[inline(always)]
fn row_words([id, last]: [u128; 2], row: &NearestTwo) -> ([u32; 10], usize) {
    // Byte 16 is the id's last, then come two of the label and eight of the distance.
    let nearest = last | u128::from(row.label) << 8 | u128::from(row.d2) << 24;
    let (second, n_bytes) = match row.second {
        Some(second) => (u128::from(second) | u128::from(row.second_d2) << 16, 37),
        None => (0, 27),
    };
    // From byte 27 on.
    let [a, b, c, d] = words(id);
    let [e, f, g, h] = words(nearest | second << 88);
    let [i, j, ..] = words(second >> 40);
    ([a, b, c, d, e, f, g, h, i, j], n_bytes)
}

fn schema(id_type: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("customer_id", id_type, false),
        Field::new("persona_id", DataType::Int32, false),
        Field::new("distance", DataType::Float64, false),
        Field::new("second_persona_id", DataType::Int32, true),
        Field::new("margin", DataType::Float64, true),
    ]))
}

fn properties() -> WriterProperties {
    let builder = ["customer_id", "distance", "margin"].into_iter().fold(
        WriterProperties::builder(),
        // Distances and ids hardly repeat: a dictionary of them costs time and saves nothing.
        |builder, column| builder.set_column_dictionary_enabled(ColumnPath::from(column), false),
    );
    // The digits of a root are noise: a fourteenth is all that compression saves. Numbers of personas are some bits each, and it saves nothing.
    let loose = ["persona_id", "distance", "second_persona_id", "margin"];
    let builder = loose.into_iter().fold(
        builder.set_compression(Compression::ZSTD(ZstdLevel::default())),
        |builder, column| {
            builder.set_column_compression(ColumnPath::from(column), Compression::UNCOMPRESSED)
        },
    );
    builder.build()
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use clientele_data::Stores;

    use super::*;

    fn row(label: u16, d2: u64) -> NearestTwo {
        NearestTwo {
            label,
            d2,
            second: Some(1 - label),
            second_d2: d2 + 3,
        }
    }

    fn ids() -> Ids {
        Ids::from_column(Arc::new(Int32Array::from(vec![7, 8, 9])))
    }

    #[test]
    fn the_hash_notices_a_single_changed_label() {
        let rows = [row(0, 5), row(1, 6), row(0, 7)];
        let mut flipped = rows;
        flipped[1].label = 0;
        assert_eq!(
            hash_rows(&ids(), &rows, None),
            hash_rows(&ids(), &rows, None)
        );
        assert_ne!(
            hash_rows(&ids(), &rows, None),
            hash_rows(&ids(), &flipped, None)
        );
    }

    #[test]
    fn rows_of_integers_are_hashed_as_their_bytes() {
        let alone = NearestTwo {
            second: None,
            second_d2: u64::MAX,
            ..row(0, 77)
        };
        let far = NearestTwo {
            label: 513,
            d2: (1 << 58) - 1,
            second: Some(u16::MAX),
            second_d2: 1 << 57 | 0x0123_4567,
        };
        let mut expected = RowHashSum::default();
        for (id, row) in [(7_i128, alone), (-8, far), (9, row(1, 6))] {
            let mut bytes = vec![b'i'];
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&row.label.to_le_bytes());
            bytes.extend_from_slice(&row.d2.to_le_bytes());
            if let Some(second) = row.second {
                bytes.extend_from_slice(&second.to_le_bytes());
                bytes.extend_from_slice(&row.second_d2.to_le_bytes());
            }
            expected.add(&blake3::hash(&bytes));
        }
        let ids = Ids::from_column(Arc::new(Int32Array::from(vec![7, -8, 9])));
        assert_eq!(hash_rows(&ids, &[alone, far, row(1, 6)], None), expected);
    }

    #[test]
    fn texts_of_any_length_are_hashed_as_their_bytes() {
        let texts = [
            "",
            "a",
            "twenty-seven bytes and ten more",
            &"long ".repeat(40),
        ];
        let mut expected = RowHashSum::default();
        for text in texts {
            let mut bytes = vec![b's'];
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(&[1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
            expected.add(&blake3::hash(&bytes));
        }
        let ids = Ids::from_column(Arc::new(StringArray::from(texts.to_vec())));
        assert_eq!(hash_rows(&ids, &[row(1, 6); 4], None), expected);
    }

    #[test]
    fn the_hash_follows_the_customer_and_not_the_row() {
        let rows = [row(0, 5), row(1, 6), row(0, 7)];
        let kept = [rows[2], rows[0]];
        let in_order = hash_rows(&ids(), &[rows[0], rows[2]], Some(&[0, 2]));
        assert_eq!(in_order, hash_rows(&ids(), &kept, Some(&[2, 0])));
        assert_ne!(in_order, hash_rows(&ids(), &kept, Some(&[0, 2])));
    }

    #[test]
    fn a_part_has_the_same_bytes_on_a_disk_and_in_an_object_store() {
        let disk = tempfile::tempdir().unwrap();
        let memory = Arc::new(object_store::memory::InMemory::new());
        let stores = Stores::default().with_object_store("lake", memory, "");
        let run = "lake:run/assignments".parse().unwrap();
        let in_store = stores.unwrap().folder(&run).unwrap();
        let on_disk = Folder::local(disk.path().join("run/assignments"));
        let written = [in_store, on_disk].map(|dir| {
            let (ids, spill_dir) = (ids(), disk.path());
            let begin = || PartWriter::begin(dir.clone(), spill_dir, ShardId(3), &ids);
            let mut part = begin().unwrap();
            let rows = [row(0, 5), row(1, 6), row(0, 7)];
            let blocks = [&rows[..], &[], &rows[..]].map(|rows| {
                let nth = usize::from(rows.is_empty());
                part.encode(nth, &ids, rows, None, 0.5).unwrap()
            });
            blocks
                .into_iter()
                .for_each(|block| part.append(block).unwrap());
            assert_eq!(dir.list().unwrap(), [""; 0], "not before it is whole");
            drop(begin().unwrap());
            part.finish().unwrap();
            assert_eq!(dir.list().unwrap(), ["part-00003.parquet"]);
            dir.read("part-00003.parquet").unwrap().unwrap()
        });
        assert!(written[0] == written[1] && written[0].starts_with(b"PAR1"));
    }

    #[test]
    fn a_margin_is_a_share_of_the_second_distance() {
        assert_eq!(
            margin(&NearestTwo {
                label: 0,
                d2: 1,
                second: Some(1),
                second_d2: 4
            }),
            Some(0.75)
        );
        assert_eq!(
            margin(&NearestTwo {
                label: 0,
                d2: 0,
                second: Some(1),
                second_d2: 0
            }),
            Some(0.0)
        );
        assert_eq!(
            margin(&NearestTwo {
                label: 0,
                d2: 0,
                second: None,
                second_d2: 0
            }),
            None
        );
    }
}
