//! Health checks: what decides them, and what must not.
