//! Packets that a node must not balance, or must refuse by their reason.
