//! metrics: to come.
