//! Changes to inputs, by seed. Most leave an input's structure alone and change what it says.

use strongroom_tests::dice::Dice;

use crate::{INPUT_BYTES_MAX, Parser};

/// Values at which parsers make mistakes.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Pieces of text at which parsers of text make mistakes.
const TEXTS: [&str; 14] = [
    "0", "+", "-", " ", "\n", "\r\n", ".", ":", "{", "}", "\\", "\"", "1e9", "\u{e9}",
];

/// An input made of those known, and whether its checksums were made to fit.
pub fn mutated(parser: &Parser, known: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = dice.pick(known).clone();
    for _ in 0..=dice.below(4) {
        change(&mut input, known, dice);
    }
    input.truncate(INPUT_BYTES_MAX);
    if dice.percent(80) {
        (parser.repair)(&mut input);
    }
    input
}

fn change(input: &mut Vec<u8>, known: &[Vec<u8>], dice: &mut Dice) {
    if input.is_empty() {
        input.extend((0..dice.below(64)).map(|_| 0));
        return;
    }
    let at = dice.below(input.len() as u64) as usize;
    match dice.below(13) {
        0 | 1 => input[at] ^= 1 << dice.below(8),
        2 => input[at] = dice.roll() as u8,
        3 => input[at] = input[at].wrapping_add(dice.below(5) as u8).wrapping_sub(2),
        // A field of 1, 2, 4 or 8 bytes: an edge, a length of what is there, or a little more or less.
        4..=6 => field(input, at, dice),
        7 => input.truncate(at),
        8 => {
            let end = at + dice.below((input.len() - at).min(64) as u64) as usize;
            input.drain(at..end);
        }
        9 => {
            let end = at + dice.below((input.len() - at).min(256) as u64) as usize;
            let piece = input[at..end].to_vec();
            let to = dice.below(input.len() as u64 + 1) as usize;
            input.splice(to..to, piece);
        }
        10 => {
            let other = dice.pick(known);
            let from = dice.below(other.len() as u64 + 1) as usize;
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        11 => {
            let text = dice.pick(&TEXTS).bytes();
            input.splice(at..at, text);
        }
        _ => {
            let bytes: Vec<u8> = (0..1 + dice.below(16)).map(|_| dice.roll() as u8).collect();
            input.splice(at..at, bytes);
        }
    }
}

fn field(input: &mut [u8], at: usize, dice: &mut Dice) {
    let width = (1usize << dice.below(4)).min(input.len() - at);
    let mut old = [0; 8];
    old[..width].copy_from_slice(&input[at..at + width]);
    let value = match dice.below(4) {
        0 => *dice.pick(&EDGES),
        1 => (input.len() as u64).wrapping_sub(dice.below(16)),
        2 => ((input.len() - at) as u64).wrapping_sub(dice.below(16)),
        _ => u64::from_le_bytes(old)
            .wrapping_add(dice.below(17))
            .wrapping_sub(8),
    };
    input[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    // Some of what is read here is big-endian.
    if dice.percent(15) {
        input[at..at + width].reverse();
    }
}
