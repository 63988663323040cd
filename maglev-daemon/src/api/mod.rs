//! api: to come.
