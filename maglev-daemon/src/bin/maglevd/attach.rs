//! `maglevd pass`, and code shared with `maglevd decap`: programs that are attached until a signal.

use std::net::IpAddr;

use anyhow::Context as _;
use clap::ValueEnum;
use ipnet::IpNet;
use maglev_daemon::decap::take;
use maglev_daemon::runtime::{Failure, signals::Stop, systemd};
use maglev_dataplane::{InterfaceSettings, Pass, Refresh};
use maglev_net::links::Watch;

use crate::say;

/// The interfaces of `maglevd pass`.
#[derive(Debug, clap::Args)]
pub(super) struct PassArgs {
    /// An interface; may be repeated
    #[arg(long = "interface", value_name = "NAME", required = true)]
    interfaces: Vec<String>,

    /// The place of the program: native (in the driver) or generic (in the network stack)
    #[arg(long, value_enum, default_value_t = Mode::Native)]
    mode: Mode,
}

/// The place of a program on an interface.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    Native,
    Generic,
}

impl From<Mode> for maglev_dataplane::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

/// An address or prefix of an option.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| format!("{text:?} is not an address or prefix; expected one such as 10.64.0.0/16"))?;
    if net.trunc() != net {
        return Err(format!("{net} has host bits set; write {} or the address alone", net.trunc()));
    }
    Ok(net)
}

/// Passes every packet until a signal comes; prints `ready` once attached.
pub(super) fn pass(args: &PassArgs) -> Result<(), Failure> {
    let PassArgs { interfaces, mode } = args;
    let interfaces = settings(interfaces, *mode);
    block_on(async {
        let mut stop = Stop::listen()?;
        let mut watch = Watch::start()?;
        let mut program = Pass::start(&interfaces, &watch.list().await?)?;
        systemd::notify("READY=1");
        say("ready")?;
        let mut last = Refresh::default();
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                links = watch.changed() => take(program.refresh(&links), &mut last, &mut watch),
            }
        }
    })
}

/// Interfaces by name, all in one mode.
pub(super) fn settings(names: &[String], mode: Mode) -> Vec<InterfaceSettings> {
    names.iter().map(|name| InterfaceSettings { name: name.clone(), mode: mode.into(), also: Vec::new() }).collect()
}

/// Runs a task to its end.
pub(super) fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(task)
}
