//! `cargo xtask bench --against REVISION --instructions`: the comparison with another revision, in an emulated machine whose clock counts
//! executed instructions, so that its figures are exact and depend on no other load. It must not know what is compared.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{debian::Kernel, fetched, initramfs, machine};

/// The option, which the benchmark has too: it names the unit then.
pub(crate) const OPTION: &str = "--instructions";
/// What the machine runs: the benchmark, with the daemon that it holds its object against, and the other one.
const NAMES: [&str; 3] = ["maglev-bench", "maglevd", "other"];
/// What comes before the benchmark's exit code.
const ENDED: &str = "ended with ";
/// The time limit: half a minute for the boot, and as much for a scenario.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs the benchmark at `folder` with its arguments, of which one names the other revision's benchmark, in the newest of the kernels.
/// Prints what it says. False if it failed.
///
/// # Errors
/// If there is nothing to compare with, or the machine does not run the benchmark to its end.
pub(crate) fn compare(folder: &Path, arguments: &[OsString]) -> Result<bool> {
    let (words, against) = words(arguments)?;
    let (kernels, all) = fetched(false)?;
    let kernel = all.last().context("there is no kernel")?;
    let files = [folder.join(NAMES[0]), folder.join(NAMES[1]), against];
    let programs: Vec<_> = NAMES.map(str::to_owned).into_iter().zip(files).collect();
    let run = format!("{{ /bin/{} {words} 2>&1; echo \"{ENDED}$?\"; }} | busybox cat", NAMES[0]);
    let said = boot(&kernels, kernel, &programs, &run)?;
    let (figures, code) =
        said.rsplit_once(ENDED).context("the benchmark did not end; see its console for the reason")?;
    let (_, figures) = figures.split_once(initramfs::RELEASE).context("the machine did not start the benchmark")?;
    print!("{}", figures.split_once('\n').map_or("", |(_, figures)| figures));
    Ok(code.trim() == "0")
}

/// What the machine said.
fn boot(folder: &Path, kernel: &Kernel, programs: &[(String, PathBuf)], run: &str) -> Result<String> {
    let (image, console) = (folder.join("instructions.initramfs"), folder.join("instructions.console"));
    fs::write(&image, initramfs::image(kernel, programs, run)?)
        .with_context(|| format!("cannot write {}", image.display()))?;
    eprintln!("bench: counting instructions in an emulated machine, half a minute for each scenario");
    let clock = machine::Clock::Instructions;
    let machine = machine::Machine { kernel: &kernel.image, initramfs: &image, console: &console, clock };
    let run = machine::run(&machine, LIMIT)?;
    if run.timed_out {
        bail!("the machine was still running after {} s, and was stopped: {}", LIMIT.as_secs(), run.said);
    }
    Ok(run.said)
}

/// The benchmark's arguments in the machine, as words of a shell, and the file that is compared with.
fn words(arguments: &[OsString]) -> Result<(String, PathBuf)> {
    let (mut words, mut against) = (Vec::new(), None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let joined = argument.to_str().and_then(|text| text.strip_prefix("--against="));
        let file = if argument == "--against" { rest.next().map(OsString::as_os_str) } else { joined.map(OsStr::new) };
        if let Some(file) = file {
            against = Some(PathBuf::from(file));
            words.push(format!("--against=/bin/{}", NAMES[2]));
        } else {
            words.push(quoted(argument)?);
        }
    }
    let against =
        against.context("`--instructions` is for a comparison: name a revision or an object with `--against`")?;
    Ok((words.join(" "), against))
}

/// A word that a shell takes as it is.
fn quoted(word: &OsStr) -> Result<String> {
    match word.to_str() {
        Some(word) if !word.contains('\'') && !word.contains('{') => Ok(format!("'{word}'")),
        _ => bail!("`{}` cannot be passed on to the emulated machine", word.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_benchmark_is_replaced_by_its_name_in_the_machine() {
        let of = |words: &[&str]| super::words(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let expected = ("--against=/bin/other '--within' '9' '--instructions'".to_owned(), PathBuf::from("/b/old"));
        assert_eq!(of(&["--against", "/b/old", "--within", "9", OPTION]).unwrap(), expected);
        assert_eq!(of(&["--against=/b/old", "--within", "9", OPTION]).unwrap(), expected);
        assert!(of(&[OPTION]).unwrap_err().to_string().contains("--against"));
        assert!(of(&["--against", "/b/old", "it's"]).is_err());
    }
}
