//! net: to come.
