//! `maglev capture`: packets of the load balancer as a pcapng file. It must not know how packets are captured.

mod file;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::value_parser;
use ipnet::IpNet;
use maglev_api::client::{Caught, ClientError};
use maglev_api::view::{CaptureCounts, NewCapture};
use maglev_model::capture::TcpFlags;
use maglev_model::{parse_duration, shown};

use self::file::Capture;
use super::interrupt::Interrupt;
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each packet that left the node changed is in the file twice: as it came in, and as it left. All conditions \
                  hold for a packet; --outcome and --reason can be repeated. While a capture runs, the program that \
                  captures runs in the place of the other one. \
                  Example: maglev capture --vip www --reason too_big -w - | wireshark -k -i -"
)]
pub(super) struct Args {
    /// The file, a new one; `-` for standard output
    #[arg(long, short = 'w', value_name = "FILE")]
    write: PathBuf,
    /// Packets for this VIP
    #[arg(long, value_name = "VIP")]
    vip: Option<String>,
    /// Packets for this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Packets for this backend of the pool
    #[arg(long, value_name = "BACKEND", requires = "pool")]
    backend: Option<String>,
    /// Packets from this address or prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    client: Option<IpNet>,
    /// Packets from or to this port
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// TCP segments with these flags set, or clear with `!`: syn,!ack
    #[arg(long, value_name = "FLAGS")]
    tcp_flags: Option<TcpFlags>,
    /// Packets with this outcome
    #[arg(long, value_name = "OUTCOME", value_parser = ["forwarded", "passed", "answered", "dropped"])]
    outcome: Vec<String>,
    /// Packets that this counter counts (`maglev counters`)
    #[arg(long, value_name = "COUNTER")]
    reason: Vec<String>,
    /// One in so many packets, by chance
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    one_in: u32,
    /// The first bytes of each packet: 64 to 16383
    #[arg(long, value_name = "BYTES", default_value_t = NewCapture::MOST_BYTES, value_parser = value_parser!(u32).range(
        i64::from(NewCapture::LEAST_BYTES)..=i64::from(NewCapture::MOST_BYTES)))]
    bytes: u32,
    /// Packets in a second on each CPU, at most 1000000; more are counted, not captured
    #[arg(long, value_name = "PACKETS", default_value_t = NewCapture::RATE, value_parser = value_parser!(u32).range(
        1..=i64::from(NewCapture::MOST_RATE)))]
    rate: u32,
    /// End after so many packets
    #[arg(long, short = 'c', value_name = "PACKETS", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    count: Option<u64>,
    /// End after this time: 1s to 24h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    time: Duration,
    /// End before the file is larger than this
    #[arg(long, value_name = "MB", default_value_t = 1_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000))]
    megabytes: u64,
}

fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
        "not an address or a prefix; allowed: an IPv4 or IPv6 address, or one with a length, such as 198.51.100.0/24"
            .to_owned()
    })
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(NewCapture::MOST_SECONDS);
    match parse_duration(text) {
        Some(time) if (Duration::from_secs(1)..=most).contains(&time) => Ok(time),
        _ => Err("not a time from 1s to 24h".to_owned()),
    }
}

impl Args {
    fn wanted(&self) -> NewCapture {
        let Self { vip, pool, backend, client, port, tcp_flags, outcome, reason, one_in, bytes, rate, time, .. } = self;
        NewCapture {
            vip: vip.clone(),
            pool: pool.clone(),
            backend: backend.clone(),
            client: *client,
            port: *port,
            tcp_flags: tcp_flags.map(|flags| flags.to_string()),
            outcomes: outcome.clone(),
            reasons: reason.clone(),
            one_in: *one_in,
            bytes: *bytes,
            rate: *rate,
            seconds: time.as_secs(),
        }
    }
}

pub(super) fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let path = &args.write;
    let to_output = path.as_os_str() == "-";
    if to_output && io::stdout().is_terminal() {
        return Err(Failure::Usage("standard output is a terminal: give a file, or pipe it to wireshark".to_owned()));
    }
    let out: Box<dyn Write> = if to_output { Box::new(io::stdout()) } else { Box::new(create(path)?) };
    let shown = if to_output { "standard output".to_owned() } else { path.display().to_string() };
    let mut writing = Writing { capture: None, out: Some(out), counts: CaptureCounts::default(), ended: None };
    let interrupt = Interrupt::says(writing.summary(&shown))?;
    let received = client.capture(&args.wanted(), |caught| {
        let goes_on = writing.take(caught, args);
        interrupt.now_says(writing.summary(&shown));
        goes_on
    });
    match (received, writing.ended.take()) {
        (Err(error @ (ClientError::Refused(_) | ClientError::Unreachable { .. })), None)
            if writing.capture.is_none() =>
        {
            if !to_output {
                // Nothing was written to it.
                drop(std::fs::remove_file(path));
            }
            Err(error.into())
        }
        (_, Some(Err(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            eprintln!("maglev: the reader of {shown} has ended: {}", writing.summary(&shown));
            Ok(())
        }
        (_, Some(Err(error))) => {
            Err(Failure::Bad(format!("cannot write {shown}: {error}; {}", writing.summary(&shown))))
        }
        (Err(error), _) => Err(Failure::Bad(format!("{error}; {}", writing.summary(&shown)))),
        (Ok(()), reason) => {
            let reason = reason.and_then(Result::ok).map(|reason| format!(": {reason}")).unwrap_or_default();
            eprintln!("maglev: the capture ended{reason}; {}", writing.summary(&shown));
            Ok(())
        }
    }
}

/// A new file that its owner alone can read; a device or a pipe is written to.
fn create(path: &Path) -> Result<File, Failure> {
    let name = shown(&path.to_string_lossy());
    let is_device = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    let created = OpenOptions::new().write(true).create_new(!is_device).mode(0o600).open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Bad(format!("{name} exists; choose another file")),
        _ => Failure::Bad(format!("cannot write {name}: {error}")),
    })
}

/// A file that is being written, which begins once the daemon captures.
struct Writing {
    capture: Option<Capture<Box<dyn Write>>>,
    out: Option<Box<dyn Write>>,
    counts: CaptureCounts,
    ended: Option<io::Result<String>>,
}

impl Writing {
    fn take(&mut self, caught: Caught, args: &Args) -> ControlFlow<()> {
        let ended = match self.write(caught, args) {
            Ok(None) => return ControlFlow::Continue(()),
            Ok(Some(reason)) => Ok(reason),
            Err(error) => Err(error),
        };
        self.ended = Some(ended);
        ControlFlow::Break(())
    }

    /// Writes what was received; returns why the capture is to end, if it is.
    fn write(&mut self, caught: Caught, args: &Args) -> io::Result<Option<String>> {
        let capture = match (&mut self.capture, self.out.take()) {
            (Some(capture), _) => capture,
            (none, Some(out)) => none.insert(Capture::begin(out)?),
            (None, None) => return Ok(None),
        };
        match caught {
            Caught::Packet(packet) => {
                let most = args.megabytes.saturating_mul(1_000_000);
                if !capture.write(&packet, most)? {
                    return Ok(Some(format!("{} MB are written", args.megabytes)));
                }
                let count = args.count.filter(|count| capture.packets() >= *count);
                return Ok(count.map(|count| format!("{count} packets are written")));
            }
            Caught::Counts(counts) => self.counts = counts,
            Caught::Ended(reason) => return Ok(Some(reason)),
        }
        Ok(None)
    }

    /// What was written, and what was not.
    fn summary(&self, file: &str) -> String {
        summary(self.capture.as_ref().map_or(0, Capture::packets), file, self.counts)
    }
}

/// How many packets were written, and how many were not.
pub(super) fn summary(packets: u64, file: &str, counts: CaptureCounts) -> String {
    let CaptureCounts { matched: _, limited, lost } = counts;
    let plural = if packets == 1 { "" } else { "s" };
    format!("{packets} packet{plural} in {file}; {limited} beyond the rate, {lost} lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_times_are_read() {
        assert_eq!(parse_prefix("198.51.100.7").unwrap().to_string(), "198.51.100.7/32");
        assert_eq!(parse_prefix("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(parse_prefix("198.51.100.0/33").is_err() && parse_prefix("web").is_err());
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert!(["0s", "25h", "soon"].iter().all(|time| parse_time(time).is_err()));
    }
}
