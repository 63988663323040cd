//! `maglevd uninstall`: detaches what daemons and `decap` left forwarding, and removes what they pinned. It must not know what it
//! was for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use maglev_daemon::runtime::Failure;
use maglev_dataplane::Pins;

use crate::DEFAULT_CONFIG;
use crate::decap::DEFAULT_PIN as DECAP;

/// The pin folder of a node file that does not say, or is not there.
const NODE: &str = "/sys/fs/bpf/maglev";

/// The arguments of `maglevd uninstall`.
#[derive(Debug, clap::Args)]
pub(super) struct UninstallArgs {
    /// The node file, which names the pin folder; if it is missing: /sys/fs/bpf/maglev
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// The pin folder, whatever the node file says
    #[arg(long, value_name = "DIR")]
    pin: Option<PathBuf>,

    /// The pin folder of `maglevd decap`
    #[arg(long, value_name = "DIR", default_value = DECAP)]
    decap_pin: PathBuf,

    /// Only what daemons pinned, or only what `maglevd decap` pinned; default: both
    #[arg(long, value_name = "SIDE")]
    only: Option<Side>,
}

/// The side of a data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Side {
    Node,
    Decap,
}

/// Removes everything, or says what holds it.
pub(super) fn run(args: &UninstallArgs) -> Result<(), Failure> {
    let node = match &args.pin {
        _ if args.only == Some(Side::Decap) => None,
        Some(pin) => Some(pin.clone()),
        None if args.config.exists() => maglev_store::load_node(&args.config)?.pin,
        None => Some(PathBuf::from(NODE)),
    };
    let mut found = false;
    let decap = if args.only == Some(Side::Node) { Vec::new() } else { interfaces(&args.decap_pin)? };
    for folder in node.into_iter().filter(|folder| folder.exists()).chain(decap) {
        found |= remove(&folder)?;
    }
    if args.only != Some(Side::Node) {
        // Only if it is empty.
        let _ = fs::remove_dir(&args.decap_pin);
    }
    if !found {
        crate::say("nothing is pinned")?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<bool, Failure> {
    let found = Pins::hold(folder)?.uninstall()?;
    if found {
        crate::say(&format!("{}: detached and removed", folder.display()))?;
    }
    Ok(found)
}

/// The folders of the interfaces on which `decap` was attached.
fn interfaces(decap: &Path) -> Result<Vec<PathBuf>, Failure> {
    match fs::read_dir(decap) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let entries = entries.map_err(|error| anyhow::anyhow!("cannot read {}: {error}", decap.display()))?;
            Ok(entries.flatten().map(|entry| entry.path()).collect())
        }
    }
}
