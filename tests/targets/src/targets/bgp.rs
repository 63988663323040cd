//! The decoder of BGP messages.

use maglev_bgp::fuzzing;

use crate::fuzz::Target;

/// A message that is understood is understood again from its encoding; a fault is answered by a NOTIFICATION that is one.
pub(super) const MESSAGES: Target = Target { name: "bgp", seeds: fuzzing::messages, words: WORDS, run: fuzzing::check };

const WORDS: &[&[u8]] = &[
    &[0xff; 16],
    &[0, 19, 4],
    &[0, 23, 2, 0, 0, 0, 0],
    &[2, 6, 1, 4, 0, 1, 0, 1],
    &[1, 4, 0, 2, 0, 1],
    &[65, 4, 0, 0, 0xfd, 0xea],
    &[64, 2, 0, 120],
    &[0x40, 1, 1, 0],
    &[0x40, 2, 0],
    &[0x90, 14, 0, 5],
    &[0x80, 15, 3, 0, 2, 1],
    &[32, 203, 0, 113, 10],
    &[0xff, 0xff],
];
