//! `maglevd doctor`: what is set up wrong on this node or backend, without a daemon. It must not know what is examined.

use std::path::{Path, PathBuf};

use maglev_api::view::Findings;
use maglev_daemon::doctor::{self, Given};
use maglev_daemon::runtime::{self, Failure, preflight};

use crate::DEFAULT_CONFIG;

/// The file of a backend by default.
const DEFAULT_BACKEND: &str = "/etc/maglev/decap.yaml";

/// The arguments of `maglevd doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Examine a backend, which decapsulates, not a node
    #[arg(long)]
    backend: bool,

    /// The node file, or the backend's. Default: /etc/maglev/maglev.yaml; with --backend: /etc/maglev/decap.yaml
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,

    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the findings. An error if one of them is, or with `--strict` a warning.
pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let usual = if args.backend { DEFAULT_BACKEND } else { DEFAULT_CONFIG };
    let path = args.config.as_deref().unwrap_or(Path::new(usual));
    let findings = if args.backend { doctor::backend(path) } else { node(path) };
    match args.json {
        true => crate::say(&serde_json::to_string_pretty(&findings).map_err(anyhow::Error::from)?)?,
        false => crate::say(findings.to_string().trim_end())?,
    }
    findings.verdict(args.strict).map_err(|reason| anyhow::anyhow!(reason).into())
}

fn node(path: &Path) -> Findings {
    let loaded = maglev_store::load(path);
    let given = match &loaded {
        Ok((node, services)) => {
            let named = |(vip, reason): (maglev_model::Name, String)| (vip.to_string(), reason);
            let conflicts = runtime::conflicts(node, services).map(|found| found.into_iter().map(named).collect());
            let conflicts = conflicts.map_err(|error| format!("{error:#}"));
            Given { conflicts: Some(conflicts), rehearsal: Some(preflight::rehearse(node)), daemon: None }
        }
        Err(_) => Given::default(),
    };
    doctor::node(path, &loaded, given)
}
