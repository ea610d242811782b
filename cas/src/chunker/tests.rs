//! Golden cuts, and the two properties everything else rests on.

use proptest::prelude::*;

use super::*;

const CDC: [Class; 3] = [Class::Cdc16K, Class::Cdc64K, Class::Cdc256K];

/// Bytes that look random and are the same for ever.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn cuts(gear: &Gear, class: Class, data: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut cuts = Vec::new();
    while at < data.len() {
        let end = data.len().min(at + class.chunk_max());
        at += gear.cut(class, &data[at..end]);
        cuts.push(at);
    }
    cuts
}

#[test]
fn cut_points_are_frozen() {
    let gear = Gear::from_seed(0x0123_4567_89ab_cdef);
    let data = noise(1 << 20, 42);
    let golden: [&[usize]; 3] = [&GOLDEN_16K, &GOLDEN_64K, &GOLDEN_256K];
    for (class, golden) in CDC.into_iter().zip(golden) {
        assert_eq!(cuts(&gear, class, &data), golden, "{class:?}");
    }
}

#[test]
fn the_drive_key_decides_the_cuts() {
    let data = noise(1 << 20, 42);
    let a = Gear::new(&IdKey::from_bytes([1; 32]));
    let b = Gear::new(&IdKey::from_bytes([2; 32]));
    assert_ne!(cuts(&a, Class::Cdc16K, &data), cuts(&b, Class::Cdc16K, &data));
    assert_eq!(IdKey::from_bytes([1; 32]).chunker_seed(), GOLDEN_SEED);
}

#[test]
fn class_codes_are_frozen() {
    let codes = [(Class::Cdc16K, 1), (Class::Cdc64K, 2), (Class::Cdc256K, 3), (Class::Fixed64K, 4)];
    for (class, code) in codes {
        assert_eq!(class.code(), code);
        assert_eq!(Class::from_code(code), Some(class));
    }
    assert_eq!(Class::from_code(0), None);
    assert_eq!(Class::from_code(5), None);
}

#[test]
fn chunk_lengths_are_within_their_class() {
    let gear = Gear::new(&IdKey::from_bytes([3; 32]));
    let data = noise(16 << 20, 7);
    for class in CDC {
        let ends = cuts(&gear, class, &data);
        let mut start = 0;
        for end in &ends[..ends.len() - 1] {
            assert!((class.average() / 4..=class.chunk_max()).contains(&(end - start)));
            start = *end;
        }
        let average = data.len() / ends.len();
        assert!((class.average() / 2..class.average() * 2).contains(&average), "{average}");
        assert!(class.chunk_max() <= CHUNK_LEN_MAX);
    }
    let fixed = cuts(&gear, Class::Fixed64K, &data[..200_000]);
    assert_eq!(fixed, [65_536, 131_072, 196_608, 200_000]);
}

#[test]
fn a_class_is_kept_until_four_times_outside_its_range() {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    assert_eq!(Class::for_len(256 * MIB), Class::Cdc16K);
    assert_eq!(Class::for_len(256 * MIB + 1), Class::Cdc64K);
    assert_eq!(Class::for_len(4 * GIB + 1), Class::Cdc256K);
    assert_eq!(Class::Cdc16K.keep_or_change(GIB), Class::Cdc16K);
    assert_eq!(Class::Cdc16K.keep_or_change(GIB + 1), Class::Cdc64K);
    assert_eq!(Class::Cdc64K.keep_or_change(64 * MIB), Class::Cdc64K);
    assert_eq!(Class::Cdc64K.keep_or_change(64 * MIB - 1), Class::Cdc16K);
    assert_eq!(Class::Cdc64K.keep_or_change(16 * GIB), Class::Cdc64K);
    assert_eq!(Class::Cdc64K.keep_or_change(16 * GIB + 1), Class::Cdc256K);
    assert_eq!(Class::Cdc256K.keep_or_change(GIB), Class::Cdc256K);
    assert_eq!(Class::Cdc256K.keep_or_change(GIB - 1), Class::Cdc64K);
    assert_eq!(Class::Fixed64K.keep_or_change(0), Class::Fixed64K);
    assert_eq!(Class::Fixed64K.keep_or_change(u64::MAX), Class::Fixed64K);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What rewriting rests on: bytes after the one behind a cut do not move the cut.
    #[test]
    fn a_cut_depends_on_no_more_than_one_byte_after_it(
        seed in any::<u64>(),
        other in any::<u64>(),
        low_entropy in any::<bool>(),
    ) {
        let gear = Gear::new(&IdKey::from_bytes([9; 32]));
        let class = Class::Cdc16K;
        let mut data = noise(class.chunk_max(), seed);
        if low_entropy {
            data.iter_mut().for_each(|byte| *byte &= 1);
        }
        let cut = gear.cut(class, &data);
        let replaced = noise(data.len(), other);
        for keep in [cut + 2, cut + 3, cut + 100] {
            if keep < data.len() {
                let mut changed = data.clone();
                changed[cut + 1..].copy_from_slice(&replaced[cut + 1..]);
                prop_assert_eq!(gear.cut(class, &changed), cut);
                prop_assert_eq!(gear.cut(class, &data[..keep]), cut);
            }
        }
        prop_assert_eq!(gear.cut(class, &data[..cut]), cut);
        // A content that ends one byte behind a cut may be cut there or not.
        if cut < data.len() {
            prop_assert!((cut..=cut + 1).contains(&gear.cut(class, &data[..cut + 1])));
        }
    }

    /// What deduplication rests on: after an insertion the cuts meet again.
    #[test]
    fn an_insertion_moves_few_cuts(at in 0usize..500_000, inserted in 1usize..5_000) {
        let gear = Gear::new(&IdKey::from_bytes([9; 32]));
        let data = noise(1 << 20, 5);
        let mut longer = data.clone();
        longer.splice(at..at, noise(inserted, 77));
        let old = cuts(&gear, Class::Cdc16K, &data);
        let new = cuts(&gear, Class::Cdc16K, &longer);
        let kept = new
            .iter()
            .filter(|cut| old.contains(cut) || cut.checked_sub(inserted).is_some_and(|c| old.contains(&c)))
            .count();
        prop_assert!(new.len() - kept <= 8, "{} of {} moved", new.len() - kept, new.len());
    }
}

const GOLDEN_SEED: u64 = 15_416_267_509_872_021_078;
const GOLDEN_16K: [usize; 54] = [
    21155, 38248, 58806, 76199, 94657, 111616, 129883, 165453, 185570, 207885, 211982, 230309,
    236796, 254723, 265497, 290735, 296325, 322411, 340165, 358689, 381885, 401870, 436741, 465863,
    478974, 498170, 509884, 517292, 521396, 526883, 551497, 557591, 576632, 584584, 601800, 623087,
    658697, 679717, 720109, 745744, 780221, 814565, 821964, 844665, 872410, 893929, 909327, 917152,
    925757, 951040, 985318, 1003647, 1033220, 1048576,
];
const GOLDEN_64K: [usize; 14] = [
    76199, 207885, 290735, 308357, 337111, 354569, 465863, 526883, 658697, 746844, 821964, 909327,
    985318, 1048576,
];
const GOLDEN_256K: [usize; 4] = [308357, 746844, 985318, 1048576];
