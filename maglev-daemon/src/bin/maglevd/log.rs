//! Logs on standard error: text for people, or JSON for collectors.

use std::io::stderr;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The level and the form of the log.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// How much to log: error, warn, info, debug or trace, or a list of TARGET=LEVEL
    #[arg(long, global = true, value_name = "LEVEL", env = "MAGLEV_LOG", default_value = "info", value_parser = filter)]
    log: EnvFilterText,

    /// Text for people, or one JSON object per line
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A validated filter; `EnvFilter` itself cannot be cloned, as arguments must be.
#[derive(Clone, Debug)]
struct EnvFilterText(String);

fn filter(text: &str) -> Result<EnvFilterText, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(EnvFilterText(text.to_owned())),
        Err(error) => Err(format!("{error}; allowed: error, warn, info, debug, trace")),
    }
}

/// Starts logging. Lines go to standard error; systemd adds the time.
pub(super) fn start(args: &LogArgs) {
    let LogArgs { log: EnvFilterText(filter), log_format } = args;
    let subscriber = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(stderr);
    match log_format {
        Format::Text => subscriber.with_target(false).with_ansi(false).init(),
        Format::Json => subscriber.json().init(),
    }
}
