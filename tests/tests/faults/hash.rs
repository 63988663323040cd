//! The flow hash: what a client can and cannot steer without its key.
