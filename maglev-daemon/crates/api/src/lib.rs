//! The API, shared by daemon and command line: the [`view`]s of answers, and the [`client`]. It must not know how the daemon
//! computes an answer, nor how the command line shows it.

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

/// The header with the reason of a change: text in UTF-8 that [`maglev_model::parse_reason`] accepts.
pub const WHY_HEADER: &str = "maglev-why";

/// The header with the name of the sent file, for messages and the history.
pub const FILE_HEADER: &str = "maglev-file";

/// The largest services file in bytes, for reading and writing.
pub const LARGEST_FILE: u64 = 16 << 20;

/// The release of this program.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The interval at which the daemon sends a comment to an idle follower of events.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The name of the message that a follower receives instead of lost events.
pub const MISSED: &str = "missed";

/// The answer to a request, or its error.
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
