//! The modes of files: secrets are for the owner and a group, and what the daemon obeys is changed by no other user. It must not know
//! how a mode is read.

use super::facts::{File, Mode, Role};
use super::report::{Report, page};

/// Bits of a mode.
const OTHERS: u32 = 0o007;
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Adds the findings about files.
pub(crate) fn check(files: &[File], report: &mut Report) {
    for File { path, role, found } in files {
        match found {
            Err(reason) => report.unchecked(path, "its permissions", reason),
            Ok(None) => check_absent(path, *role, report),
            Ok(Some(mode)) => check_mode(path, *role, *mode, report),
        }
    }
}

fn check_absent(path: &str, role: Role, report: &mut Report) {
    match role {
        Role::Services => report.ok(path, "it does not exist yet: the node has no services", page::CONFIG),
        Role::Socket => report.ok(path, "it does not exist: no daemon runs", page::DIES),
        Role::State => {
            let remedy = format!("`install -d -m 750 -o maglev {path}`");
            report.error(path, "the folder does not exist: no change can be saved", remedy, page::INSTALL);
        }
        Role::Secret | Role::Settings => {
            report.error(path, "it does not exist", "create it from the example in the package", page::INSTALL);
        }
    }
}

fn check_mode(path: &str, role: Role, Mode { bits, owner }: Mode, report: &mut Report) {
    let shown = bits & 0o7777;
    match role {
        Role::Secret if bits & OTHERS_READ != 0 => {
            let found = format!("every user can read the secrets in it (mode {shown:o})");
            report.error(path, found, format!("`chmod o= {path}`"), page::SECURITY);
        }
        Role::Socket if bits & OTHERS != 0 => {
            let found = format!("every user can connect and change the services (mode {shown:o})");
            report.error(path, found, format!("`chmod 660 {path}`"), page::SECURITY);
        }
        Role::State if bits & OTHERS_WRITE != 0 && bits & STICKY == 0 => {
            let found = format!("every user can replace the files in it (mode {shown:o})");
            report.error(path, found, format!("`chmod o-w {path}`"), page::SECURITY);
        }
        Role::Secret | Role::Settings | Role::Services if bits & OTHERS_WRITE != 0 => {
            let found = format!("every user can write it (mode {shown:o})");
            report.error(path, found, format!("`chmod o-w {path}`"), page::SECURITY);
        }
        _ => report.ok(path, format!("mode {shown:o}, owner {owner}"), page::SECURITY),
    }
}
