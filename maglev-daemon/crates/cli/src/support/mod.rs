//! `maglev support`: one archive with all that helps to find a fault of a node: the daemon's views, its configuration and the host's
//! state, without secrets. What cannot be had is named in it.

mod archive;
mod host;
mod secrets;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use maglev_api::view::{ServicesFile, Status};
use maglev_model::shown;
use serde_json::Value;

use self::archive::Archive;
use self::host::read;
use self::secrets::Secrets;
use super::output::print;
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The archive holds addresses, names and traffic of this node, its log and its configuration, but neither the \
                        hash key nor passwords. Its README lists what is in it, and what could not be had. \
                        Exit codes: 0 written, with what could be had; 1 could not be written; 2 wrong usage"
)]
pub(super) struct Args {
    /// The archive, a new file; `-` for standard output. Default: maglev-support-HOST-TIME.tar.gz in this folder
    #[arg(long, short = 'w', value_name = "FILE")]
    write: Option<PathBuf>,
    /// The node's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/maglev/maglev.yaml")]
    config: PathBuf,
}

/// The daemon's views: the file of each, and its path in the API.
const VIEWS: [(&str, &str); 10] = [
    ("status.json", "/v1/status"),
    ("node.json", "/v1/node"),
    ("counters.json", "/v1/counters"),
    ("vips.json", "/v1/vips"),
    ("pools.json", "/v1/pools"),
    ("backends.json", "/v1/backends"),
    ("bgp-neighbors.json", "/v1/bgp/neighbors"),
    ("bgp-routes.json", "/v1/bgp/routes"),
    ("history.json", "/v1/history"),
    ("events.json", "/v1/events/recent"),
];

pub(super) fn run(args: &Args, client: &Client) -> Result<(), Failure> {
    let now = maglev_api::now();
    let time: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let name = format!("maglev-support-{}-{time}", host::name());
    let path = args.write.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let to_output = path.as_os_str() == "-";
    let is_device = std::fs::metadata(&path).is_ok_and(|found| !found.is_file());
    // Before anything is collected: a file that cannot be written is reported at once.
    let out: Box<dyn Write> = if to_output { Box::new(io::stdout()) } else { Box::new(create(&path, is_device)?) };
    let secrets = Secrets::from_config(&std::fs::read_to_string(&args.config).unwrap_or_default());
    let failed = |error| Failure::Bad(format!("cannot write {}: {error}", shown(&path.to_string_lossy())));
    let mut archive = Archive::new(out, name, now, secrets);
    let collected = collect(&mut archive, &args.config, client).and_then(|()| archive.finish());
    let left_out = collected.map_err(|error| {
        if !to_output && !is_device {
            // What was written is no archive.
            drop(std::fs::remove_file(&path));
        }
        failed(error)
    })?;
    left_out.iter().for_each(|line| eprintln!("maglev: left out: {line}"));
    if to_output {
        return Ok(());
    }
    print(&format!("wrote {}\n", path.display()))
}

/// A new file that its owner alone can read; a device or a pipe is written to.
fn create(path: &Path, is_device: bool) -> Result<File, Failure> {
    let created = OpenOptions::new().write(true).create_new(!is_device).mode(0o600).open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Bad(format!("{} exists; choose another file", shown(&path.to_string_lossy())))
        }
        _ => Failure::Bad(format!("cannot write {}: {error}", shown(&path.to_string_lossy()))),
    })
}

/// Everything, in the order of the archive.
fn collect(archive: &mut Archive<Box<dyn Write>>, config: &Path, client: &Client) -> io::Result<()> {
    for (file, path) in VIEWS {
        let view = client.get::<Value>(path).map_err(|error| error.to_string());
        let text = view.and_then(|view| serde_json::to_string_pretty(&view).map_err(|error| error.to_string()));
        archive.add(&format!("api/{file}"), text)?;
    }
    let services = client.get::<ServicesFile>("/v1/services").map_err(|error| error.to_string());
    archive.add("api/services.yaml", services.map(|file| file.services))?;
    archive.add("config/maglev.yaml", read(config))?;
    let status = client.get::<Status>("/v1/status").ok();
    let mut interfaces: Vec<String> = status.into_iter().flat_map(|status| host::interfaces(&status)).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    for (file, text) in host::facts(&interfaces) {
        archive.add(&format!("host/{file}"), text)?;
    }
    Ok(())
}
