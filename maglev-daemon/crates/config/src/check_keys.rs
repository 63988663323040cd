//! The keys that a check may have.

/// Keys of a check of any kind.
pub(super) const COMMON: [&str; 8] = ["kind", "interval", "timeout", "fall", "rise", "jitter", "port", "via"];

/// Keys of single kinds.
pub(super) const OF_KINDS: [&str; 11] =
    ["vip", "path", "status", "body", "host", "sni", "verify", "payload", "expect", "query", "rcode"];
