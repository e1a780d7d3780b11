//! The answers.

mod outcome;
mod rows;
mod statistics;

use clientele_data::duplicates::{Duplicates, MAX_EXAMPLES};
use clientele_data::ingest::IngestPartial;
use clientele_kmeans::relocate::FarthestRows;
use clientele_kmeans::{GRID_LIMIT, MAX_CLUSTERS, Partial};
use clientele_protocol::cluster::Digest;
use clientele_protocol::{Answer, MAX_PASS_VALUES};
use prost::Message;

use crate::check::{self, ROWS, required};
use crate::v1::answer::Answer as Body;
use crate::{WireError, v1, wide};

pub use outcome::MAX_HISTOGRAM_CELLS;

/// Encodes an answer.
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    v1::Answer::from(answer).encode_to_vec()
}

/// Decodes an answer.
///
/// # Errors
/// [`WireError`] when these are not the bytes of an answer that makes sense. Whether it is one to the question asked is for
/// [`Answer::check`] to say.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, WireError> {
    check::decode::<v1::Answer>("Answer", bytes)?.try_into()
}

/// BLAKE3 of what an answer says, without what it says for display: all workers' answers to one question have the same.
pub fn answer_digest(answer: &Answer) -> Digest {
    let mut answer = v1::Answer::from(answer);
    if let Some(Body::Pass(pass)) = &mut answer.answer {
        for partial in &mut pass.partials {
            (partial.n_moved, partial.n_rechecked) = (None, 0);
        }
    }
    blake3::hash(&answer.encode_to_vec())
}

impl From<&Answer> for v1::Answer {
    fn from(answer: &Answer) -> Self {
        let answer = match answer {
            Answer::Statistics(partial) => Body::Statistics((&**partial).into()),
            Answer::Ingest(partial) => Body::Ingest((&**partial).into()),
            Answer::Duplicates(found) => Body::Duplicates(found.into()),
            Answer::Seed(race) => Body::Seed(race.into()),
            Answer::Weigh(counts) => Body::Weigh(v1::WeighAnswer {
                counts: counts.clone(),
            }),
            Answer::Pass(partials) => Body::Pass(v1::PassAnswer {
                partials: partials.iter().map(Into::into).collect(),
            }),
            Answer::Relocate(lists) => Body::Relocate(v1::RelocateAnswer {
                lists: lists.iter().map(Into::into).collect(),
            }),
            Answer::Final(partial) => Body::Final((&**partial).into()),
        };
        Self {
            answer: Some(answer),
        }
    }
}

impl TryFrom<v1::Answer> for Answer {
    type Error = WireError;

    fn try_from(message: v1::Answer) -> Result<Self, WireError> {
        Ok(match required("answer", message.answer)? {
            Body::Statistics(partial) => Self::Statistics(Box::new(partial.try_into()?)),
            Body::Ingest(partial) => Self::Ingest(Box::new(partial.try_into()?)),
            Body::Duplicates(found) => Self::Duplicates(found.try_into()?),
            Body::Seed(race) => Self::Seed(race.try_into()?),
            Body::Weigh(v1::WeighAnswer { counts }) => {
                check::all_within("counts", &counts, ROWS)?;
                Self::Weigh(counts)
            }
            Body::Pass(v1::PassAnswer { partials }) => {
                let n_values: usize = partials.iter().map(|partial| partial.sums.len()).sum();
                check::within("n_values", n_values as u64, 0..=MAX_PASS_VALUES as i128)?;
                let partials = partials.into_iter().map(Partial::try_from);
                Self::Pass(partials.collect::<Result<_, _>>()?)
            }
            Body::Relocate(v1::RelocateAnswer { lists }) => {
                let lists = lists.into_iter().map(FarthestRows::try_from);
                Self::Relocate(lists.collect::<Result<_, _>>()?)
            }
            Body::Final(partial) => Self::Final(Box::new(partial.try_into()?)),
        })
    }
}

impl From<&Partial> for v1::Partial {
    fn from(partial: &Partial) -> Self {
        Self {
            counts: partial.counts.clone(),
            sums: partial.sums.clone(),
            n_moved: partial.n_moved,
            n_rechecked: partial.n_rechecked,
        }
    }
}

impl TryFrom<v1::Partial> for Partial {
    type Error = WireError;

    fn try_from(message: v1::Partial) -> Result<Self, WireError> {
        let v1::Partial {
            counts,
            sums,
            n_moved,
            n_rechecked,
        } = message;
        check::within("n_clusters", counts.len() as u64, 1..=MAX_CLUSTERS as i128)?;
        let n_features = sums.len() / counts.len();
        check::within("n_features", n_features as u64, check::FEATURES)?;
        check::shape("sums", sums.len(), counts.len() * n_features)?;
        for (&count, sums) in counts.iter().zip(sums.chunks_exact(n_features)) {
            check::within("counts", count, ROWS)?;
            sums.iter().try_for_each(|&sum| {
                check::sum("sums", sum.into(), count, i128::from(GRID_LIMIT) - 1)
            })?;
        }
        if let Some(n_moved) = n_moved {
            check::within("n_moved", n_moved, ROWS)?;
        }
        check::within("n_rechecked", n_rechecked, ROWS)?;
        Ok(Self {
            counts,
            sums,
            n_moved,
            n_rechecked,
        })
    }
}

impl From<&IngestPartial> for v1::IngestAnswer {
    fn from(partial: &IngestPartial) -> Self {
        Self {
            n_rows: partial.n_rows,
            n_dropped: partial.n_dropped,
            total_squares: wide::bytes(&[partial.total_squares]),
            sums: wide::bytes(&partial.sums),
            squares: wide::bytes(&partial.squares),
            clipped_low: partial.clipped_low.clone(),
            clipped_high: partial.clipped_high.clone(),
            imputed: partial.imputed.clone(),
            value_total: wide::bytes(&[partial.value_total]),
            n_valued: partial.n_valued,
        }
    }
}

impl TryFrom<v1::IngestAnswer> for IngestPartial {
    type Error = WireError;

    fn try_from(message: v1::IngestAnswer) -> Result<Self, WireError> {
        const LARGEST: i128 = GRID_LIMIT as i128 - 1;
        let n_features = message.clipped_low.len();
        check::within("n_features", n_features as u64, check::FEATURES)?;
        let partial = Self {
            n_rows: check::within("n_rows", message.n_rows, ROWS)?,
            n_dropped: check::within("n_dropped", message.n_dropped, ROWS)?,
            total_squares: wide::one("total_squares", &message.total_squares)?,
            sums: wide::many("sums", &message.sums, n_features)?,
            squares: wide::many("squares", &message.squares, n_features)?,
            clipped_low: message.clipped_low,
            clipped_high: message.clipped_high,
            imputed: message.imputed,
            value_total: wide::one("value_total", &message.value_total)?,
            n_valued: check::within("n_valued", message.n_valued, ROWS)?,
        };
        for (field, counts) in [
            ("clipped_low", &partial.clipped_low),
            ("clipped_high", &partial.clipped_high),
            ("imputed", &partial.imputed),
        ] {
            check::shape(field, counts.len(), n_features)?;
            check::all_within(field, counts, ROWS)?;
        }
        for (sum, squares) in partial.sums.iter().zip(&partial.squares) {
            check::sum("sums", *sum, partial.n_rows, LARGEST)?;
            check::sum("squares", *squares, partial.n_rows, LARGEST * LARGEST)?;
        }
        let largest_total = LARGEST * LARGEST * n_features as i128;
        check::sum(
            "total_squares",
            partial.total_squares,
            partial.n_rows,
            largest_total,
        )?;
        check::sum(
            "value_total",
            partial.value_total,
            partial.n_valued,
            1 << 63,
        )?;
        Ok(partial)
    }
}

impl From<&Duplicates> for v1::DuplicatesAnswer {
    fn from(found: &Duplicates) -> Self {
        Self {
            n_surplus: found.n_surplus,
            examples: found.examples.clone(),
        }
    }
}

impl TryFrom<v1::DuplicatesAnswer> for Duplicates {
    type Error = WireError;

    fn try_from(message: v1::DuplicatesAnswer) -> Result<Self, WireError> {
        let v1::DuplicatesAnswer {
            n_surplus,
            examples,
        } = message;
        check::within("n_surplus", n_surplus, ROWS)?;
        check::within(
            "n_examples",
            examples.len() as u64,
            0..=MAX_EXAMPLES as i128,
        )?;
        // No customer id in a message: examples are hashes or nothing.
        let is_hash = |text: &String| {
            text.len() == 16
                && text
                    .bytes()
                    .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        };
        match examples.iter().find(|text| !is_hash(text)) {
            None => Ok(Self {
                n_surplus,
                examples,
            }),
            Some(_) => Err(check::bad_text(
                "examples",
                "",
                "hashes of 16 hexadecimal digits",
            )),
        }
    }
}
