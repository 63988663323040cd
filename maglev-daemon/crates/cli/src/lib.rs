//! The command line `maglev`: one file per subcommand. Each asks the daemon through [`Client`], gets one view back and
//! renders it as text or JSON. It must not know how the daemon works: the API's views are all it sees.

mod backend;
mod bgp;
mod capture;
mod changes;
mod completions;
mod counters;
mod decap;
#[cfg(test)]
mod docs;
mod doctor;
mod events;
mod flow;
mod flow_table;
mod history;
mod interrupt;
mod node;
mod output;
mod plan;
mod pool;
mod progress;
mod reload;
mod rollback;
mod services;
mod status;
mod support;
mod text;
mod top;
mod vip;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use maglev_api::client::{Client, ClientError};
use maglev_api::view::ErrorKind;
use maglev_program::{Exit, manual, usage};

use output::{Format, Printer};

/// The daemon's socket by default.
pub const DEFAULT_SOCKET: &str = "/run/maglev/maglev.sock";

/// Shows and changes what maglevd, the L4 load balancer's daemon, does.
#[derive(Debug, Parser)]
#[command(name = "maglev", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 refused or could not; 2 wrong usage or invalid input; 3 daemon unreachable; \
                  130 interrupted"
)]
struct Args {
    /// The daemon's socket. Default: /run/maglev/maglev.sock; of `maglev decap`: /run/maglev-decap/maglev-decap.sock
    #[arg(long, global = true, value_name = "PATH", env = "MAGLEV_SOCKET")]
    socket: Option<PathBuf>,

    /// Tables for people, or JSON for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,

    /// The reason of a change, for the history: one line of at most 160 bytes
    #[arg(long = "message", short = 'm', global = true, value_name = "WHY", value_parser = maglev_model::parse_reason)]
    why: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The state of the node: interfaces, digests for comparing nodes, pools, VIPs and backends
    Status,
    /// Virtual IPs: the address, port and protocol that clients connect to
    #[command(subcommand)]
    Vip(vip::VipCommand),
    /// Pools: sets of backends that serve the same content
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Backends: the servers behind a pool
    #[command(subcommand)]
    Backend(backend::BackendCommand),
    /// Preview a change in slots and flows, without making it
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Reload the configuration files; a file with errors changes nothing
    Reload(reload::Args),
    /// Revisions of the services: author, time, change and reason; and how two of them differ
    History(history::Args),
    /// Restore the services of an older revision, as a new revision
    Rollback(rollback::Args),
    /// The services as a whole, as a file: export, compare, replace
    #[command(subcommand)]
    Services(services::ServicesCommand),
    /// Packets by outcome, the traffic of each VIP and backend, and packets lost at interfaces
    Counters(counters::Args),
    /// Write packets to a pcapng file, before and after encapsulation, each with what was decided as a comment
    Capture(capture::Args),
    /// Write one archive for support: views, configuration and host, without secrets
    Support(support::Args),
    /// Examine the node: what is set up wrong, and the remedies
    Doctor(doctor::Args),
    /// The traffic and health of the node, live in a terminal, or one frame of it
    Top(top::Args),
    /// Recent events of backends, pools, prefixes and the node, and changes with their author
    Events(events::Args),
    /// The node as a whole: its state; drain and undrain
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// BGP: sessions with neighbors, and announced prefixes
    #[command(subcommand)]
    Bgp(bgp::BgpCommand),
    /// On a backend: the service that decapsulates, `maglevd decap --config`
    #[command(subcommand)]
    Decap(decap::DecapCommand),
    /// Single flows
    #[command(subcommand)]
    Flow(flow::FlowCommand),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// An existing folder
        folder: PathBuf,
    },
}

/// Runs `maglev` with these arguments, program name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let args = match parse(arguments) {
        Ok(args) => args,
        Err(error) => return usage::report("maglev", &error),
    };
    match run(args) {
        Ok(()) => Exit::Done,
        Err(failure) => failure.report(),
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let args = Args::try_parse_from(arguments)?;
    if let Command::History(history) = &args.command {
        history.check()?;
    }
    Ok(args)
}

fn run(args: Args) -> Result<(), Failure> {
    let Args { socket, output, why, command } = args;
    let printer = Printer::new(output);
    let usual = if matches!(command, Command::Decap(_)) { decap::DEFAULT_SOCKET } else { DEFAULT_SOCKET };
    let socket = socket.unwrap_or_else(|| PathBuf::from(usual));
    let client =
        || Client::new(&socket).map(|client| client.with_reason(why)).map_err(|error| Failure::Io("start", error));
    match command {
        Command::Status => status::run(&client()?, &printer),
        Command::Vip(command) => vip::run(command, &client()?, &printer),
        Command::Pool(command) => pool::run(command, &client()?, &printer),
        Command::Backend(command) => backend::run(command, &client()?, &printer),
        Command::Plan(command) => plan::run(command, &client()?, &printer),
        Command::Reload(args) => reload::run(&args, &client()?, &printer),
        Command::History(args) => history::run(args, &client()?, &printer),
        Command::Rollback(args) => rollback::run(args, &client()?, &printer),
        Command::Services(command) => services::run(&command, &client()?, &printer),
        Command::Counters(args) => counters::run(&args, &client()?, &printer),
        Command::Capture(args) => capture::run(&args, &client()?),
        Command::Support(args) => support::run(&args, &client()?),
        Command::Doctor(args) => doctor::run(&args, &client()?, &printer),
        Command::Top(args) => top::run(&args, client()?, &printer),
        Command::Events(args) => events::run(&args, &client()?, &printer),
        Command::Node(command) => node::run(&command, &client()?, &printer),
        Command::Bgp(command) => bgp::run(&command, &client()?, &printer),
        Command::Decap(command) => decap::run(&command, client()?, &printer),
        Command::Flow(command) => flow::run(&command, &client()?, &printer),
        Command::Completions(args) => completions::run(&args),
        Command::Man { folder } => {
            manual::write(Args::command(), "1", &folder).map_err(|error| Failure::Io("write man pages", error))
        }
    }
}

/// The error of a command.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A wait ended without the awaited outcome.
    #[error("{0}")]
    Waited(String),
    /// The command ran, and its result is bad.
    #[error("{0}")]
    Bad(String),
    /// The compared services differ; the difference is on standard output.
    #[error("there is a difference")]
    Differs,
    /// A file that cannot be sent.
    #[error("{0}")]
    File(String),
    /// Options that do not fit together, or the place where the command runs.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unreachable,
            Self::Client(ClientError::Refused(error)) => match error.kind {
                ErrorKind::Invalid => Exit::Invalid,
                ErrorKind::Conflict | ErrorKind::Failed | ErrorKind::Forbidden => Exit::Refused,
            },
            Self::File(_) | Self::Usage(_) => Exit::Invalid,
            Self::Client(ClientError::Foreign(_)) | Self::Io(..) | Self::Waited(_) | Self::Bad(_) | Self::Differs => {
                Exit::Refused
            }
        }
    }

    /// Prints one line on standard error, and one more for each mistake of a file; nothing for a difference.
    fn report(&self) -> Exit {
        if !matches!(self, Self::Differs) {
            eprintln!("maglev: {self}");
        }
        if let Self::Client(ClientError::Refused(error)) = self {
            for detail in &error.details {
                eprintln!("  {detail}");
            }
        }
        self.exit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        super::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_documented_forms_parse() {
        for line in [
            "maglev status",
            "maglev status --output json",
            "maglev --output json --socket /tmp/s vip list",
            "maglev vip show www",
            "maglev vip add www --address 203.0.113.10 --port 443 --protocol tcp --pool web",
            "maglev vip add dns --address 2001:db8::10 --port any --protocol udp --pool dns",
            "maglev vip remove www",
            "maglev pool add web",
            "maglev pool add web --tracking always --learning 30s --idle 5m --udp keep",
            "maglev pool set web --learning 120s",
            "maglev pool set web --tracking exception --learning 1h --idle 4h --udp new",
            "maglev pool set web --panic 50 --slow-start 30s",
            "maglev pool set web --no-check",
            "maglev pool add web --slow-start 0s",
            "maglev backend list",
            "maglev backend list web",
            "maglev backend add web web4 --address 10.0.1.14 --weight 100",
            "maglev backend weight web web4 50",
            "maglev backend remove web web4",
            "maglev backend remove web web4 --force",
            "maglev backend drain web web4",
            "maglev backend drain web web4 --wait",
            "maglev backend drain web web4 --wait --timeout 20m",
            "maglev backend undrain web web4",
            "maglev backend disable web web4",
            "maglev backend enable web web4",
            "maglev backend check web web4",
            "maglev backend set web web4 --no-check",
            "maglev support",
            "maglev support -w - --config maglev.yaml",
            "maglev doctor",
            "maglev doctor --strict --output json",
            "maglev top",
            "maglev top --interval 200ms --view drops",
            "maglev top --once --width 20 --height 50 --view sessions",
            "maglev events",
            "maglev events --follow",
            "maglev events --after 1764017006123456 --output json",
            "maglev plan backend add web web4 --address 10.0.1.14 --weight 100",
            "maglev plan backend remove web web4 --force --output json",
            "maglev plan backend drain web web4",
            "maglev plan backend undrain web web4",
            "maglev plan backend disable web web4",
            "maglev plan backend enable web web4",
            "maglev plan backend weight web web4 50",
            "maglev reload",
            "maglev reload --force",
            "maglev plan reload",
            "maglev plan rollback 41",
            "maglev history",
            "maglev history --pool web --backend web1 --since 2h",
            "maglev history --since 2026-11-29T10:00:00Z --output json",
            "maglev history show 41",
            "maglev history --output json show 41",
            "maglev history -m reason diff 41 57",
            "maglev history diff 41 57",
            "maglev rollback 41 -m reason",
            "maglev rollback 41 --force",
            "maglev services export",
            "maglev services export services.yaml",
            "maglev services export --output json",
            "maglev services diff services.yaml",
            "maglev services diff -",
            "maglev services apply services.yaml -m reason",
            "maglev services apply - --dry-run --force",
            "maglev backend drain web web4 -m reason",
            "maglev -m reason backend drain web web4",
            "maglev backend drain web web4 --force",
            "maglev backend disable web web4 --force",
            "maglev backend weight web web4 0 --force",
            "maglev pool remove web --force",
            "maglev counters --output json",
            "maglev capture -w -",
            "maglev capture --vip www --reason too_big --reason malformed -w lost.pcapng --count 100",
            "maglev capture --pool web --backend web1 --client 198.51.100.0/24 --port 443 --tcp-flags syn,!ack -w x",
            "maglev capture --outcome dropped --one-in 1000 --bytes 96 --rate 100 --time 1h --megabytes 1 -w x",
            "maglev flow explain 198.51.100.7:40000 203.0.113.10:443 tcp",
            "maglev flow explain [2001:db8::7]:40000 [2001:db8::10]:443 udp",
            "maglev flow explain 198.51.100.7 203.0.113.10 esp",
            "maglev vip add all --address 203.0.113.0/28 --port any --protocol any --pool web",
            "maglev vip add many --address 2001:db8::10 --port 8000-8100 --protocol sctp --pool web",
            "maglev node status",
            "maglev node drain",
            "maglev node drain --wait",
            "maglev node drain --wait --timeout 5m --last-node",
            "maglev node undrain",
            "maglev bgp neighbors",
            "maglev bgp routes --output json",
            "maglev bgp reset 10.0.0.1",
            "maglev decap status",
            "maglev decap counters --output json",
            "maglev --socket /run/d.sock decap reload",
            "maglev completions bash",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn invalid_values_are_wrong_usage() {
        for line in [
            "maglev backend add web web4 --address 10.0.1.14 --weight 70000",
            "maglev backend add web web4 --address 10.0.1 --weight 1",
            "maglev vip add www --address 203.0.113.10 --port 0 --protocol tcp --pool web",
            "maglev vip add www --address 203.0.113.10 --port 443 --protocol icmp --pool web",
            "maglev vip add www --address 203.0.113.1/28 --port 443 --protocol tcp --pool web",
            "maglev vip add www --address 203.0.113.10 --port 90-80 --protocol tcp --pool web",
            "maglev vip add bad/name --address 203.0.113.10 --port 443 --protocol tcp --pool web",
            "maglev vip add www --address 203.0.113.10",
            "maglev flow explain 198.51.100 203.0.113.10:443 tcp",
            "maglev backend drain web",
            "maglev backend drain web web4 --timeout 20m",
            "maglev backend drain web web4 --wait --timeout 0s",
            "maglev backend drain web web4 --wait --timeout 20",
            "maglev backend drain web web4 --wait --timeout 8760h",
            "maglev backend drain web web4 --wait --timeout soon",
            "maglev top --interval 100ms",
            "maglev top --interval 2m",
            "maglev top --width 80",
            "maglev top --once --width 19",
            "maglev node",
            "maglev node drain --timeout 5m",
            "maglev node drain --wait --timeout 0s",
            "maglev node drain --reason",
            "maglev node undrain --wait",
            "maglev plan",
            "maglev plan vip remove www",
            "maglev plan backend list",
            "maglev plan backend drain web web4 --wait",
            "maglev plan backend weight web web4 70000",
            "maglev pool set web",
            "maglev pool set web --learning 0s",
            "maglev pool set web --panic 101",
            "maglev pool set web --slow-start 2h",
            "maglev pool set web --no-check --check tcp",
            "maglev pool set web --check",
            "maglev pool add web --no-check",
            "maglev backend set web web4",
            "maglev backend check web",
            "maglev plan backend check web web4",
            "maglev plan backend set web web4 --no-check",
            "maglev events --after x",
            "maglev pool set web --learning 8760h",
            "maglev pool set web --learning 120",
            "maglev pool add web --idle 5s",
            "maglev pool add web --tracking never",
            "maglev pool add web --udp old",
            "maglev history --backend web1",
            "maglev history --since yesterday",
            "maglev history show",
            "maglev history diff 1",
            "maglev history --pool web show 1",
            "maglev history --since 2h diff 1 2",
            "maglev rollback",
            "maglev rollback first",
            "maglev services",
            "maglev services diff",
            "maglev services diff services.yaml --force",
            "maglev services apply --dry-run",
            "maglev reload -m",
            "maglev reload -m \tindented",
            "maglev capture",
            "maglev capture --backend web1 -w x",
            "maglev capture --tcp-flags rat -w x",
            "maglev capture --bytes 63 -w x",
            "maglev capture --time 25h -w x",
            "maglev capture --client 198.51.100.300 -w x",
            "maglev frobnicate",
        ] {
            assert!(parse(line).is_err_and(|error| error.exit_code() == 2), "{line}");
        }
    }

    #[test]
    fn exit_codes_follow_the_contract() {
        let refused = |error| Failure::Client(ClientError::Refused(error)).exit();
        assert_eq!(refused(view::Error::invalid("x")), Exit::Invalid);
        assert_eq!(refused(view::Error::conflict("x")), Exit::Refused);
        assert_eq!(refused(view::Error::failed("x")), Exit::Refused);
        assert_eq!(refused(view::Error::forbidden("x")), Exit::Refused);
        assert_eq!((Failure::Differs.exit(), Failure::File("x".into()).exit()), (Exit::Refused, Exit::Invalid));
        let unreachable = ClientError::Unreachable { socket: "/s".into(), reason: "x".into(), remedy: "y" };
        assert_eq!(Failure::Client(unreachable).exit(), Exit::Unreachable);
        assert_eq!(Failure::Client(ClientError::Foreign("x".into())).exit(), Exit::Refused);
        assert_eq!(Exit::Unreachable as u8, 3);
    }
}
