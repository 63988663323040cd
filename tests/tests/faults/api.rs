//! Readers of the API and of the metrics, and what the daemon writes and logs.
