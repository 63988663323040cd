//! The archive: files in one folder, without secrets, and a README of what is in it. It must not know where a text comes from.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use maglev_model::UnixTime;

use super::secrets::Secrets;

/// The first words of the README.
const ABOUT: &str = "What `maglev support` collected on this node. The hash key is removed from every file.\n";

/// An archive that is being written: a tar file, deflated.
pub(super) struct Archive<W: Write> {
    out: tar::Builder<GzEncoder<W>>,
    folder: String,
    /// The time of its files, in seconds since 1970.
    written_at: u64,
    secrets: Secrets,
    files: Vec<String>,
    left_out: Vec<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive of one folder.
    pub(super) fn new(out: W, folder: String, UnixTime(written_at): UnixTime, secrets: Secrets) -> Self {
        let out = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        Self { out, folder, written_at, secrets, files: Vec::new(), left_out: Vec::new() }
    }

    /// Adds a file without the secrets; or notes why there is none.
    pub(super) fn add(&mut self, path: &str, text: Result<String, String>) -> io::Result<()> {
        match text {
            Ok(text) => {
                let text = self.secrets.remove(&text);
                self.append(path, &text)?;
                self.files.push(format!("{path} ({} bytes)", text.len()));
            }
            Err(reason) => self.left_out.push(format!("{path}: {}", self.secrets.remove(&reason))),
        }
        Ok(())
    }

    /// Ends the archive with its README. Returns what is left out, a line each.
    pub(super) fn finish(mut self) -> io::Result<Vec<String>> {
        let mut readme = format!("{ABOUT}\nFiles:\n");
        self.files.iter().for_each(|file| readme += &format!("- {file}\n"));
        if !self.left_out.is_empty() {
            readme += "\nLeft out:\n";
            self.left_out.iter().for_each(|line| readme += &format!("- {line}\n"));
        }
        self.append("README", &readme)?;
        self.out.into_inner()?.finish()?.flush()?;
        Ok(self.left_out)
    }

    fn append(&mut self, path: &str, text: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.written_at);
        self.out.append_data(&mut header, format!("{}/{path}", self.folder), text.as_bytes())
    }
}
