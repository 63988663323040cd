//! digest: to come.
