//! Messages in pieces.

use clientele_proto::v1::Frame;
use clientele_proto::{Assembler, FRAME_BYTES, MAX_MESSAGE_BYTES, WireError, frames};

fn check_frames(n_bytes: usize, n_frames: usize) {
    let bytes: Vec<u8> = (0..n_bytes).map(|i| (i % 251) as u8).collect();
    let cut: Vec<Frame> = frames(bytes.clone()).collect();
    assert_eq!(cut.len(), n_frames, "{n_bytes} bytes");
    let mut assembler = Assembler::default();
    // Twice, because a stream goes on.
    for _ in 0..2 {
        let (last, first) = cut.split_last().unwrap();
        for frame in first {
            assert!(frame.data.len() <= FRAME_BYTES);
            assert_eq!(assembler.push(frame.clone()), Ok(None));
        }
        assert_eq!(assembler.push(last.clone()), Ok(Some(bytes.clone())));
    }
}

#[test]
fn a_message_is_cut_and_put_together_again() {
    check_frames(0, 1);
    check_frames(1, 1);
    check_frames(FRAME_BYTES - 1, 1);
    check_frames(FRAME_BYTES, 1);
    check_frames(FRAME_BYTES + 1, 2);
    check_frames(3 * FRAME_BYTES, 3);
}

#[test]
fn a_message_beyond_the_limit_is_refused_before_it_is_held() {
    let frame = |is_last| Frame {
        data: vec![7; FRAME_BYTES],
        is_last,
    };
    let mut assembler = Assembler::default();
    for _ in 0..MAX_MESSAGE_BYTES / FRAME_BYTES {
        assert_eq!(assembler.push(frame(false)), Ok(None));
    }
    let refused = assembler.push(frame(true)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a message of 269484032 bytes is above the limit of 268435456 bytes"
    );
}

#[test]
fn a_frame_that_is_too_large_or_brings_nothing_is_refused() {
    for (n_bytes, is_last) in [
        (FRAME_BYTES + 1, true),
        (FRAME_BYTES + 1, false),
        (0, false),
    ] {
        let data = vec![0; n_bytes];
        let refused = Assembler::default().push(Frame { data, is_last });
        assert!(matches!(refused, Err(WireError::Range { .. })), "{n_bytes}");
    }
}
