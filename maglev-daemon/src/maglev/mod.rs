//! maglev: to come.
