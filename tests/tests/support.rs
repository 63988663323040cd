//! `maglev support`: what is in the archive, what is not, and what happens where something is missing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use maglev_e2e::lab::{HASH_KEY, NEAR, Site, UPLINK, skip};

/// The files of an archive, by their path in its one folder.
fn files(archive: &Path) -> Result<BTreeMap<String, String>> {
    let mut read = tar::Archive::new(GzDecoder::new(File::open(archive)?));
    let file = |entry: std::io::Result<tar::Entry<'_, GzDecoder<File>>>| -> Result<_> {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let (folder, path) = path.split_once('/').context("a file in no folder")?;
        ensure!(folder.starts_with("maglev-support-"), "{folder}");
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        Ok((path.to_owned(), text))
    };
    read.entries()?.map(file).collect()
}

#[test]
fn an_archive_has_views_configuration_and_host_without_secrets() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let balancer = &site.balancers[0];
    balancer.maglev_ok(&["backend", "weight", "four", "web1", "50", "-m", "for the archive"])?;
    let folder = balancer.config().parent().context("a file without a folder")?.to_owned();
    let archive = |name: &str| -> PathBuf { folder.join(name) };
    let (first, config) = (archive("first.tar.gz"), balancer.config());
    let (file, config) = (first.display().to_string(), config.display().to_string());
    let order = ["support", "--write", file.as_str(), "--config", config.as_str()];

    // On the node's host, which here is a namespace.
    let done = balancer.netns().run(|| balancer.maglev_done(&order))?;
    assert_eq!(done.stdout, format!("wrote {file}\n"));
    assert_eq!(fs::metadata(&first)?.permissions().mode() & 0o777, 0o600);
    let found = files(&first)?;
    for (path, expected) in [
        ("README", "host/links"),
        ("api/status.json", UPLINK),
        ("api/counters.json", "no_backend"),
        ("api/backends.json", "10.3.1.2"),
        ("api/history.json", "for the archive"),
        ("api/events.json", "web1"),
        ("api/services.yaml", "weight: 50"),
        ("config/maglev.yaml", "(removed)"),
        ("host/os-release", "ID="),
        ("host/links", "mtu"),
        (&format!("host/{NEAR}/driver"), "veth"),
    ] {
        let text = found.get(path).with_context(|| format!("no {path} among {:?}", found.keys()))?;
        ensure!(text.contains(expected), "{expected} is not in {path}:\n{text}");
    }
    let config_text = fs::read_to_string(balancer.config())?;
    ensure!(config_text.contains(HASH_KEY), "the key is not where it is removed from");
    for (path, text) in &found {
        ensure!(!text.to_lowercase().contains(HASH_KEY), "the hash key is in {path}");
    }
    // What is listed as left out is not there, and all else is listed.
    let (listed, left_out) = found["README"].split_once("\nLeft out:\n").unwrap_or((&found["README"], ""));
    for path in found.keys().filter(|path| *path != "README") {
        ensure!(listed.contains(&format!("- {path} (")), "{path} is not listed in\n{listed}");
    }
    assert_eq!(done.stderr.lines().count(), left_out.lines().count(), "{}\n{left_out}", done.stderr);

    let again = balancer.maglev(&order)?;
    assert_eq!((again.code, again.stderr), (1, format!("maglev: {file} exists; choose another file\n")));
    assert_eq!(files(&first)?, found, "it was left alone");
    let full = balancer.maglev(&["support", "--write", "/dev/full"])?;
    ensure!(full.code == 1 && full.stderr.starts_with("maglev: cannot write /dev/full: No space"), "{full:?}");

    // Without a daemon, the rest is there.
    site.balancers[0].kill()?;
    let second = archive("second.tar.gz").display().to_string();
    let done = site.balancers[0].maglev_done(&["support", "--write", &second, "--config", "/nonexistent"])?;
    let found = files(Path::new(&second))?;
    ensure!(found.contains_key("host/links") && !found.contains_key("api/status.json"), "{:?}", found.keys());
    ensure!(done.stderr.contains("api/status.json: cannot reach maglevd"), "{}", done.stderr);
    ensure!(found["README"].contains("config/maglev.yaml: cannot read /nonexistent"), "{}", found["README"]);
    Ok(())
}
