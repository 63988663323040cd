//! The forwarding of one load balancer: what its daemon says of it, and what lies of it in the BPF file system. It must not know what
//! is done to the daemon.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Balancer;

/// The polling interval of waits.
const LOOK: Duration = Duration::from_millis(50);
/// How long a release may take to be proven, its probation included.
const PROVEN_WITHIN: Duration = Duration::from_secs(30);

impl Balancer {
    /// What `maglev status` says of the forwarding that the daemon found or made.
    ///
    /// # Errors
    /// If the CLI fails.
    pub fn forwarding(&self) -> Result<Value> {
        Ok(self.maglev_json(&["status"])?["forwarding"].clone())
    }

    /// Waits until the daemon serves what is saved, and its packet path too.
    ///
    /// # Errors
    /// If it does not.
    pub fn await_sync(&mut self) -> Result<()> {
        self.await_status("nothing to publish", |status| status["publishing"] == false)?;
        let status = self.maglev_json(&["status"])?;
        ensure!(status["out_of_sync"].is_null(), "{}", status["out_of_sync"]);
        let plan = self.maglev_json(&["plan", "reload"])?;
        ensure!(none_of(&plan["changes"]), "{plan}");
        Ok(())
    }

    /// Waits until the release that runs is proven.
    ///
    /// # Errors
    /// If it is not within half a minute.
    pub fn await_proof(&self) -> Result<()> {
        let began = Instant::now();
        while !self.maglev_ok(&["events"])?.contains("this release passed its probation") {
            ensure!(began.elapsed() < PROVEN_WITHIN, "it is not proven\n{}", self.log());
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The inodes of the pinned links: a link that was detached and made anew has another one.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn links(&self) -> Result<Vec<(String, u64)>> {
        let entries = fs::read_dir(self.pin_folder().join("links")).context("the pinned links")?;
        let mut links: Vec<_> = entries
            .map(|entry| {
                let entry = entry?;
                Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.ino()))
            })
            .collect::<Result<_>>()?;
        links.sort();
        Ok(links)
    }

    /// How many objects lie below the pin folder, at any depth.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn pinned_objects(&self) -> Result<usize> {
        let (mut folders, mut objects) = (vec![self.pin_folder()], 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { objects += 1 }
            }
        }
        Ok(objects)
    }
}

/// Whether all numbers are 0.
fn none_of(changes: &Value) -> bool {
    match changes {
        Value::Object(parts) => parts.values().all(none_of),
        number => *number == 0,
    }
}
