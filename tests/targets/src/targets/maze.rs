//! A fault behind three comparisons, one within the other: found if coverage guides, and not by as many blind changes.

use crate::fuzz::Target;

/// Fails on inputs that have three certain bytes at certain places, each compared in its turn.
pub const MAZE: Target = Target { name: "maze", seeds: || vec![vec![0; 16]], words: &[], run };

fn run(input: &[u8]) -> Result<(), String> {
    let mut deep = 0_u8;
    if input.first() == Some(&0xc3) {
        deep += 1;
        if input.get(5) == Some(&0x5a) {
            deep += 1;
            if input.get(11) == Some(&0x96) {
                deep += 1;
            }
        }
    }
    if std::hint::black_box(deep) == 3 { Err("the end of the maze".to_owned()) } else { Ok(()) }
}
