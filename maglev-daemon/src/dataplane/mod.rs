//! dataplane: to come.
