//! The API as both sides see it: the [`view`]s that the daemon answers with, and the [`client`] that asks for them. It must not
//! know how an answer comes about, nor how it is shown.

pub mod client;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
pub mod view;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maglev_model::UnixTime;

/// The version of paths and JSON. A client and a daemon that differ in it refuse each other.
pub const VERSION: u32 = 1;

/// The header in which both sides name their [`VERSION`].
pub const VERSION_HEADER: &str = "maglev-api";

/// The header in which both sides name their release.
pub const RELEASE_HEADER: &str = "maglev-release";

/// The header in which a client says why it asks for a change: text in UTF-8, [`maglev_model::parse_reason`] says which.
pub const WHY_HEADER: &str = "maglev-why";

/// The header in which a client names the file that it sends: messages and the history name it.
pub const FILE_HEADER: &str = "maglev-file";

/// Bytes that a services file may have at most: the largest that the daemon reads, and writes.
pub const LARGEST_FILE: u64 = 16 << 20;

/// The release of this program.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// How often the daemon sends something to a follower of events, if only a comment.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The name of the message that a follower receives instead of lost events.
pub const MISSED: &str = "missed";

/// The answer to a request, or why there is none.
pub type Answer<T> = Result<T, view::Error>;

/// The present time, in milliseconds since 1970-01-01T00:00:00Z.
pub fn now_in_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The present time.
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
