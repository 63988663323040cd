//! `maglev services`: all services as a file, for services that are kept in git. It must not know the content of a file: the
//! daemon parses it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use maglev_api::LARGEST_FILE;
use maglev_api::view::{Applied, Changes, PlannedServices, ServicesFile};
use maglev_model::shown;

use super::output::Printer;
use super::{Client, ClientError, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum ServicesCommand {
    /// Write all services as a file, in the form in which maglevd writes them; the first line names their revision
    Export {
        /// The file; standard output if not given, or `-`
        file: Option<PathBuf>,
    },
    /// Show what `apply` would change
    #[command(
        after_help = "Exit codes: 0 no difference; 1 a difference (on standard output), or could not (on standard error); 2 wrong \
                            usage or invalid file; 3 daemon unreachable"
    )]
    Diff {
        /// The file; `-` for standard input
        file: PathBuf,
    },
    /// Replace all services by those of a file, as one revision; a file with errors, or based on an older revision, changes nothing
    #[command(
        after_help = "Exit codes: 0 done; 1 refused or could not; 2 wrong usage or invalid file; 3 daemon unreachable; --dry-run exits like the same command without it. A \
                            file whose first line is `# revision N` is based on revision N of this node; a file without that line \
                            replaces all services."
    )]
    Apply {
        /// The file; `-` for standard input
        file: PathBuf,
        /// Show the changes, without making them
        #[arg(long)]
        dry_run: bool,
        /// Even if that takes out more than 30 % of a pool's available backends, or the last one, or more than 10 % of the VIPs, or
        /// undoes changes made since the revision in the file's first line
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(command: &ServicesCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        ServicesCommand::Export { file } => export(file.as_deref(), client, printer),
        ServicesCommand::Diff { file } => {
            let planned = plan(file, false, client)?;
            printer.answer(&planned)?;
            if planned.changes == Changes::default() { Ok(()) } else { Err(Failure::Differs) }
        }
        ServicesCommand::Apply { file, dry_run: true, force } => {
            let planned = plan(file, *force, client)?;
            printer.answer(&planned)?;
            planned.refused.map_or(Ok(()), |refused| Err(ClientError::Refused(refused).into()))
        }
        ServicesCommand::Apply { file, dry_run: false, force } => {
            let (name, text) = read(file)?;
            printer.answer(&client.put_file::<Applied>(&format!("/v1/services?force={force}"), &name, text)?)
        }
    }
}

fn plan(file: &Path, force: bool, client: &Client) -> Result<PlannedServices, Failure> {
    let (name, text) = read(file)?;
    Ok(client.post_file(&format!("/v1/plan/services?force={force}"), &name, text)?)
}

fn export(file: Option<&Path>, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let exported: ServicesFile = client.get("/v1/services")?;
    let Some(file) = file.filter(|file| !is_stdin(file)) else { return printer.answer(&exported) };
    let failed = |error| Failure::Bad(format!("cannot write {}: {error}", file.display()));
    replace(file, &exported.services).map_err(failed)?;
    printer.done(&exported, &format!("exported revision {} to {}", exported.revision, file.display()))
}

/// Writes a temporary file and renames it into place: a full disk leaves the old file. A pipe or a device is written directly.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let found = fs::metadata(file).ok();
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        return fs::write(file, text);
    }
    let name = file.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // A symbolic link stays; its target is replaced.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}", std::process::id()));
    let aside = file.with_file_name(aside);
    let write = || {
        fs::write(&aside, text)?;
        found.map_or(Ok(()), |found| fs::set_permissions(&aside, found.permissions()))?;
        fs::rename(&aside, &file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// The text of a file, and its name for messages.
fn read(file: &Path) -> Result<(String, String), Failure> {
    if is_stdin(file) {
        return read_from(io::stdin(), "stdin");
    }
    let name = file.to_string_lossy();
    let bad = |error: &dyn std::fmt::Display| Failure::File(format!("{}: {error}", shown(&name)));
    let opened = File::open(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad(&"there is no such file"),
        _ => bad(&error),
    })?;
    let found = opened.metadata().map_err(|error| bad(&error))?;
    if found.is_dir() {
        return Err(bad(&"a folder; expected a file"));
    }
    if found.len() > LARGEST_FILE {
        return Err(too_large(&name, &found.len().to_string()));
    }
    read_from(opened, &name)
}

/// Reads at most `LARGEST_FILE` bytes.
fn read_from(source: impl io::Read, name: &str) -> Result<(String, String), Failure> {
    let mut bytes = Vec::new();
    let read = source.take(LARGEST_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::File(format!("{}: {error}", shown(name))))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(too_large(name, "more"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::File(format!("{}:{line}: not text: expected YAML in UTF-8", shown(name)))
    })?;
    Ok((name.to_owned(), text))
}

fn too_large(name: &str, bytes: &str) -> Failure {
    let name = shown(name);
    Failure::File(format!("{name}: {bytes} bytes; allowed: at most {LARGEST_FILE} (16 MiB)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::TempDir;

    fn refused(file: &Path) -> String {
        let failure = read(file).unwrap_err();
        assert_eq!(failure.exit(), crate::Exit::Invalid);
        failure.to_string()
    }

    #[test]
    fn a_file_that_cannot_be_sent_is_named_with_the_reason() {
        let folder = TempDir::new();
        let path = |name: &str| folder.path().join(name);
        assert!(refused(&path("none")).ends_with("/none: there is no such file"));
        assert!(refused(folder.path()).ends_with(": a folder; expected a file"));
        fs::write(path("binary"), b"pools: []\n\xff\xfe\n").unwrap();
        assert!(refused(&path("binary")).ends_with("/binary:2: not text: expected YAML in UTF-8"));
        File::create(path("large")).unwrap().set_len(20_000_000).unwrap();
        assert!(refused(&path("large")).ends_with("/large: 20000000 bytes; allowed: at most 16777216 (16 MiB)"));
        let endless = read_from(io::repeat(b'#'), "stdin").unwrap_err().to_string();
        assert_eq!(endless, "stdin: more bytes; allowed: at most 16777216 (16 MiB)");
        fs::write(path("empty"), "").unwrap();
        assert_eq!(read(&path("empty")).unwrap().1, "", "the daemon refuses it");
    }

    #[test]
    fn an_export_replaces_a_file_in_one_step_or_not_at_all() {
        let folder = TempDir::new();
        let file = folder.path().join("services.yaml");
        replace(&file, "one").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(replace(folder.path(), "three").is_err() && replace(&folder.path().join("no/such"), "x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    }
}
