//! Decoding of what may be anything.

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;
use wavetank_node::wire;

use crate::memory::peak_of;
use crate::mutation;

/// A decoder may reserve this much ahead of what it reads, per level of nesting that holds a list.
const AHEAD_BYTES: usize = 8 << 20;

fn assert_frugal(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ((), peak) = peak_of(|| mutation::decode(bytes));
    prop_assert!(
        peak < AHEAD_BYTES + 100 * bytes.len(),
        "{peak} bytes for {}",
        bytes.len()
    );
    Ok(())
}

#[test]
fn every_frame_and_message_comes_back_as_it_was() {
    for frame in mutation::frames() {
        let mut bytes = bytes::BytesMut::new();
        wire::encode(&frame, &mut bytes);
        assert_eq!(wire::decode(&bytes[4..]), Ok(Some(frame)));
    }
    for message in mutation::messages() {
        assert_eq!(
            wire::decode_message(&wire::encode_message(&message)),
            Ok(message)
        );
    }
}

#[test]
fn what_was_right_once_is_decoded_or_refused() -> Result<(), TestCaseError> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let seeds = mutation::seeds();
    for _ in 0..20_000 {
        assert_frugal(&mutation::mutated(&seeds, &mut rng))?;
    }
    Ok(())
}

#[test]
fn nesting_is_limited() -> Result<(), TestCaseError> {
    for header in [0x81, 0xc1, 0x9f] {
        assert_frugal(&vec![header; 1 << 20])?;
    }
    assert_frugal(&[0xa1, 0x61, b'x'].repeat(1 << 19))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn anything_is_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        assert_frugal(&bytes)?;
    }
}
