//! Which file lies where in a package and in the archive. It must not know how either is written.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};

use super::Release;
use super::manual::Manual;
use super::programs::Program;
use crate::program;

/// What was made before.
pub(super) struct Parts<'a> {
    pub(super) programs: &'a [Program],
    pub(super) bill: &'a Path,
    pub(super) licences: &'a Path,
    pub(super) manual: &'a Manual,
}

/// A file, its place and its mode.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) to: String,
    mode: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// A file of the sources, and its place.
type Placed = (&'static str, &'static str);

const MAGLEV: [Placed; 12] = [
    ("deploy/systemd/maglevd.service", "usr/lib/systemd/system/maglevd.service"),
    ("deploy/systemd/maglev-leave.service", "usr/lib/systemd/system/maglev-leave.service"),
    ("deploy/systemd/run-maglev-bpf.mount", "usr/lib/systemd/system/run-maglev-bpf.mount"),
    ("deploy/sysusers.d/maglev.conf", "usr/lib/sysusers.d/maglev.conf"),
    ("deploy/tmpfiles.d/maglev.conf", "usr/lib/tmpfiles.d/maglev.conf"),
    ("deploy/deb/maglev/maglev.yaml.example", "etc/maglev/maglev.yaml.example"),
    ("deploy/examples/maglev.yaml", "usr/share/doc/maglev/examples/maglev.yaml"),
    ("deploy/examples/services.yaml", "usr/share/doc/maglev/examples/services.yaml"),
    ("deploy/monitoring/alerts.yaml", "usr/share/doc/maglev/monitoring/alerts.yaml"),
    ("deploy/monitoring/alerts_test.yaml", "usr/share/doc/maglev/monitoring/alerts_test.yaml"),
    ("deploy/monitoring/dashboard.json", "usr/share/doc/maglev/monitoring/dashboard.json"),
    ("deploy/monitoring/prometheus.yaml", "usr/share/doc/maglev/monitoring/prometheus.yaml"),
];

const DECAP: [Placed; 6] = [
    ("deploy/systemd/maglev-decap.service", "usr/lib/systemd/system/maglev-decap.service"),
    ("deploy/systemd/run-maglev-bpf.mount", "usr/lib/systemd/system/run-maglev-bpf.mount"),
    ("deploy/sysusers.d/maglev.conf", "usr/lib/sysusers.d/maglev-decap.conf"),
    ("deploy/tmpfiles.d/maglev-decap.conf", "usr/lib/tmpfiles.d/maglev-decap.conf"),
    ("deploy/deb/maglev-decap/decap.yaml.example", "etc/maglev/decap.yaml.example"),
    ("deploy/deb/maglev-decap/decap.sysctl", "etc/maglev/decap.sysctl"),
];

/// The files of the archive beside programs, pages and completions.
const ARCHIVE: [Placed; 19] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE", "LICENSE"),
    ("deploy/systemd/maglevd.service", "systemd/maglevd.service"),
    ("deploy/systemd/maglev-leave.service", "systemd/maglev-leave.service"),
    ("deploy/systemd/maglev-decap.service", "systemd/maglev-decap.service"),
    ("deploy/systemd/run-maglev-bpf.mount", "systemd/run-maglev-bpf.mount"),
    ("deploy/sysusers.d/maglev.conf", "sysusers.d/maglev.conf"),
    ("deploy/tmpfiles.d/maglev.conf", "tmpfiles.d/maglev.conf"),
    ("deploy/deb/maglev/maglev.yaml.example", "examples/maglev.yaml.example"),
    ("deploy/tmpfiles.d/maglev-decap.conf", "tmpfiles.d/maglev-decap.conf"),
    ("deploy/deb/maglev-decap/decap.yaml.example", "examples/decap.yaml.example"),
    ("deploy/deb/maglev-decap/decap.sysctl", "examples/decap.sysctl"),
    ("deploy/examples/maglev.yaml", "examples/maglev.yaml"),
    ("deploy/examples/services.yaml", "examples/services.yaml"),
    ("deploy/monitoring/alerts.yaml", "monitoring/alerts.yaml"),
    ("deploy/monitoring/alerts_test.yaml", "monitoring/alerts_test.yaml"),
    ("deploy/monitoring/dashboard.json", "monitoring/dashboard.json"),
    ("deploy/monitoring/prometheus.yaml", "monitoring/prometheus.yaml"),
];

/// The files of a package.
///
/// # Errors
/// If a file of the sources is missing.
pub(super) fn package(release: &Release, name: &str, parts: &Parts<'_>) -> Result<Vec<Entry>> {
    let placed: &[Placed] = if name == "maglev" { &MAGLEV } else { &DECAP };
    let mut entries: Vec<Entry> = placed.iter().map(|placed| source(release, placed)).collect();
    if name == "maglev" {
        entries.push(leave(release, "usr/lib/maglev/leave"));
    }
    entries.extend(parts.programs.iter().map(|program| executable(program, "usr/bin")));
    for page in &parts.manual.pages {
        let (file, section) = named(page)?;
        entries.push(plain(format!("usr/share/man/man{section}/{file}.gz"), packed(&read(page)?)?));
    }
    for (shell, script) in &parts.manual.completions {
        let place = match *shell {
            "bash" => "usr/share/bash-completion/completions/maglev",
            "zsh" => "usr/share/zsh/vendor-completions/_maglev",
            _ => "usr/share/fish/vendor_completions.d/maglev.fish",
        };
        entries.push(plain(place.into(), script.clone().into_bytes()));
    }
    let documents = format!("usr/share/doc/{name}");
    let to = |file: &str| format!("{documents}/{file}");
    entries.push(plain(to("copyright"), read(&release.root.join("deploy/deb/copyright"))?));
    entries.push(plain(to("changelog.gz"), packed(&read(&release.root.join("CHANGELOG.md"))?)?));
    entries.push(plain(to("changelog.Debian.gz"), packed(changelog(release, name)?.as_bytes())?));
    entries.push(plain(to("third-party-licences.gz"), packed(&read(parts.licences)?)?));
    entries.push(plain(to("maglev.cdx.json.gz"), packed(&read(parts.bill)?)?));
    let overrides = read(&release.root.join(format!("deploy/deb/{name}/lintian-overrides")))?;
    entries.push(plain(format!("usr/share/lintian/overrides/{name}"), overrides));
    Ok(entries)
}

/// The files of the archive.
///
/// # Errors
/// If a page has no section.
pub(super) fn archive(release: &Release, parts: &Parts<'_>) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = ARCHIVE.iter().map(|placed| source(release, placed)).collect();
    entries.push(leave(release, "systemd/leave"));
    entries.extend(parts.programs.iter().map(|program| executable(program, "bin")));
    for page in &parts.manual.pages {
        let (file, section) = named(page)?;
        entries.push(plain(format!("man/man{section}/{file}"), read(page)?));
    }
    for (shell, script) in &parts.manual.completions {
        entries.push(plain(format!("completions/maglev.{shell}"), script.clone().into_bytes()));
    }
    entries.push(plain("third-party-licences".into(), read(parts.licences)?));
    Ok(entries)
}

/// Writes entries into an empty folder.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn place(entries: &[Entry], folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    make_folder(folder)?;
    for Entry { to, mode, content } in entries {
        let path = folder.join(to);
        let above = path.parent().unwrap_or(folder);
        for missing in above.ancestors().filter(|above| above.starts_with(folder)).collect::<Vec<_>>().iter().rev() {
            make_folder(missing)?;
        }
        let written = match content {
            Content::File(from) => {
                fs::copy(from, &path).map(drop).with_context(|| format!("cannot copy {}", from.display()))
            }
            Content::Bytes(bytes) => {
                fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
            }
        };
        written?;
        set_mode(&path, *mode)?;
    }
    Ok(())
}

/// A folder whose mode does not depend on the umask.
fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    set_mode(folder, 0o755)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

fn source(release: &Release, (from, to): &Placed) -> Entry {
    Entry { to: (*to).to_owned(), mode: 0o644, content: Content::File(release.root.join(from)) }
}

/// The script of maglev-leave.service.
fn leave(release: &Release, to: &str) -> Entry {
    let content = Content::File(release.root.join("deploy/deb/maglev/leave"));
    Entry { to: to.to_owned(), mode: 0o755, content }
}

fn executable(program: &Program, folder: &str) -> Entry {
    let to = format!("{folder}/{}", program.name);
    Entry { to, mode: 0o755, content: Content::File(program.file.clone()) }
}

fn plain(to: String, bytes: Vec<u8>) -> Entry {
    Entry { to, mode: 0o644, content: Content::Bytes(bytes) }
}

/// A page's file name and section: `maglevd.8` and `8`.
fn named(page: &Path) -> Result<(&str, &str)> {
    let name = page.file_name().and_then(|name| name.to_str());
    let section = page.extension().and_then(|section| section.to_str());
    match name.zip(section) {
        Some(found) => Ok(found),
        None => bail!("{} is no page: it has no section", page.display()),
    }
}

/// As `gzip -9n`: no time, no name.
fn packed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("cannot compress")?;
    encoder.finish().context("cannot compress")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Debian's changelog names the version; the changes stand in the project's own.
fn changelog(release: &Release, name: &str) -> Result<String> {
    let date = program::output(release.command("date").args(["-u", "-R"]).arg(format!("-d@{}", release.epoch)))?;
    let Release { version, package_version, .. } = release;
    Ok(format!(
        "{name} ({package_version}) unstable; urgency=medium\n\n  * Release {version}; changelog.gz has the changes.\n\n \
         -- {}  {}\n",
        super::deb::MAINTAINER,
        date.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_tables_exists() {
        for (from, _) in MAGLEV.iter().chain(&DECAP).chain(&ARCHIVE) {
            assert!(program::workspace().join(from).is_file(), "{from}");
        }
    }

    #[test]
    fn a_packed_file_has_neither_time_nor_name() {
        let packed = packed(b"text").unwrap();
        // RFC 1952: magic, deflate, no flags, no time, best compression.
        assert_eq!(packed[..9], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2]);
    }
}
