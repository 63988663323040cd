//! The table of faults: each is seeded in facts that are well otherwise.

