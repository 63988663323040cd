//! The archive that an emulated machine starts with: programs, `ip`, busybox, their libraries, the kernel's modules and an init script
//! that runs the programs and switches the machine off. It must not know QEMU.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::debian::Kernel;
use crate::program;

/// The word before the running kernel's release in the machine's report.
pub(super) const RELEASE: &str = "release ";

/// The words before a module that was not loaded, in the machine's report: tests that need it would have nothing to test.
pub(super) const UNLOADED: &str = "not loaded: ";

/// Runs the programs and reports on the second serial port: the first is the kernel's, whose messages would break a line. Closing the
/// port waits until everything is sent.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /sys /dev /tmp
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t bpf bpf /sys/fs/bpf
ip link set lo up
{
    for module in {MODULES}; do busybox insmod /$module || echo "{UNLOADED}$module"; done
    echo "{RELEASE}$(busybox uname -r)"
    {RUN}
} >/dev/ttyS1 2>&1
busybox poweroff -f
"#;

/// The archive for one kernel, with programs by their names in `/bin`, and the shell command that runs them.
///
/// # Errors
/// If a program is missing or a file cannot be read.
pub(super) fn image(kernel: &Kernel, programs: &[(String, PathBuf)], run: &str) -> Result<Vec<u8>> {
    let name = |file: &Path| Some(file.file_name()?.to_string_lossy().into_owned());
    let modules = kernel.modules.iter().map(|file| Some((name(file)?, file))).collect::<Option<Vec<_>>>();
    let modules = modules.context("a module has no name")?;
    let names = modules.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    let init = INIT
        .replace("{MODULES}", &names)
        .replace("{RELEASE}", RELEASE)
        .replace("{UNLOADED}", UNLOADED)
        .replace("{RUN}", run);
    let mut archive = Archive::default();
    archive.folder(Path::new("/bin"));
    archive.file(Path::new("/init"), init.as_bytes());
    for (name, file) in &modules {
        archive.file(&Path::new("/").join(name), &read(file)?);
    }
    let others = ["ip", "tc", "busybox"].map(|name| Ok((name.to_owned(), find(name)?)));
    let others = others.into_iter().collect::<Result<Vec<_>>>()?;
    let mut libraries = BTreeSet::new();
    for (name, file) in programs.iter().chain(&others) {
        archive.file(&Path::new("/bin").join(name), &read(file)?);
        libraries.extend(libraries_of(file)?);
    }
    for library in libraries {
        archive.file(&library, &read(&library)?);
    }
    Ok(archive.finish())
}

fn find(name: &str) -> Result<PathBuf> {
    program::find(name).with_context(|| format!("`{name}` is missing"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The libraries and the interpreter that a program loads; none if it is linked statically.
fn libraries_of(file: &Path) -> Result<Vec<PathBuf>> {
    // `ldd` fails if there is nothing to list.
    let output = program::command("ldd").arg(file).output().context("cannot run `ldd`")?;
    Ok(libraries(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`.
fn libraries(listing: &str) -> Vec<PathBuf> {
    listing.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from).collect()
}

/// A cpio archive in the "new ASCII" format, the one the kernel unpacks: each entry a header of hexadecimal numbers,
/// a name and a content, both filled up to four bytes. Linux: Documentation/driver-api/early-userspace/buffer-format.rst.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<PathBuf>,
}

/// Entry kinds with their permissions, as in `st_mode`.
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// An executable file, and its parent folders.
    fn file(&mut self, path: &Path, content: &[u8]) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.entry(path, PROGRAM, content);
    }

    /// A folder and its parents, unless they exist.
    fn folder(&mut self, path: &Path) {
        let Some(parent) = path.parent() else { return };
        if self.folders.insert(path.to_owned()) {
            self.folder(parent);
            self.entry(path, FOLDER, &[]);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("/TRAILER!!!"), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.entries += 1;
        let path = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
        let (length, name_length) = (content.len() as u32, path.len() as u32 + 1);
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path);
        self.bytes.push(0);
        self.fill_up();
        self.bytes.extend(content);
        self.fill_up();
    }

    fn fill_up(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_each_folder_before_its_files_and_ends_with_the_trailer() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/one"), b"12345");
        archive.file(Path::new("/a/two"), b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let mut rest = bytes.as_slice();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (header, after) = rest.split_at(110);
            assert!(header.starts_with(b"070701"));
            let number = |field: usize| {
                let digits = &header[6 + field * 8..][..8];
                usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (length, name_length) = (number(6), number(11));
            let name = std::str::from_utf8(&after[..name_length - 1]).unwrap();
            entries.push((name, number(1) as u32, length));
            rest = &after[(110 + name_length).next_multiple_of(4) - 110 + length.next_multiple_of(4)..];
        }
        let expected = [
            ("a", FOLDER, 0),
            ("a/b", FOLDER, 0),
            ("a/b/one", PROGRAM, 5),
            ("a/two", PROGRAM, 0),
            ("TRAILER!!!", 0, 0),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn libraries_and_the_interpreter_are_listed_and_the_kernels_own_is_not() {
        let listing = "\
\tlinux-vdso.so.1 (0x00007fd1)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fd2)
\t/lib64/ld-linux-x86-64.so.2 (0x00007fd3)
";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(listing), paths);
        assert_eq!(libraries("\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }
}
