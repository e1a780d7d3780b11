//! Messages in pieces, below the message limit of gRPC.

use crate::v1::Frame;
use crate::{WireError, check};

/// Bytes of a message in one frame, at most.
pub const FRAME_BYTES: usize = 1 << 20;

/// Bytes of a message in all its frames, at most.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Cuts an encoded message; there is always a last frame, if only an empty one.
pub fn frames(bytes: Vec<u8>) -> impl Iterator<Item = Frame> {
    let n_frames = bytes.len().div_ceil(FRAME_BYTES).max(1);
    (0..n_frames).map(move |frame_idx| {
        let start = frame_idx * FRAME_BYTES;
        let end = bytes.len().min(start + FRAME_BYTES);
        Frame {
            data: bytes[start..end].to_vec(),
            is_last: frame_idx + 1 == n_frames,
        }
    })
}

/// Puts the frames of one direction of a stream together again.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
}

impl Assembler {
    /// Takes the next frame; a message when it was its last.
    ///
    /// # Errors
    /// [`WireError`] when a frame or a message is too large, or a frame brings nothing; the stream is of no use after that.
    pub fn push(&mut self, frame: Frame) -> Result<Option<Vec<u8>>, WireError> {
        let Frame { data, is_last } = frame;
        let least = i128::from(!is_last);
        check::within("data", data.len() as u64, least..=FRAME_BYTES as i128)?;
        let n_bytes = self.bytes.len() + data.len();
        if n_bytes > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLarge {
                n_bytes,
                limit_bytes: MAX_MESSAGE_BYTES,
            });
        }
        // Most messages are one frame, which need not be copied.
        match self.bytes.is_empty() {
            true => self.bytes = data,
            false => self.bytes.extend(data),
        }
        Ok(is_last.then(|| std::mem::take(&mut self.bytes)))
    }
}
