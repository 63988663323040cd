//! Commands in a machine, and orders to its emulator: lines over two sockets. It must not know what they do.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// How long a boot or a command may take: many times what it does.
const PATIENCE: Duration = Duration::from_secs(300);
/// The word of a machine that takes commands.
const READY: &str = "ready";
/// The emulator's prompt.
const PROMPT: &[u8] = b"(qemu) ";

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its exit code.
    pub code: i32,
    /// Standard output and standard error.
    pub output: String,
}

/// A machine takes commands.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// How long it was waited for.
    pub after: Duration,
}

/// The port of the program in the machine that runs scripts.
#[derive(Debug)]
pub(super) struct Commands {
    stream: BufReader<UnixStream>,
}

/// The emulator's monitor.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: UnixStream,
}

impl Commands {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { stream: BufReader::new(connect(socket)?) })
    }

    /// Waits for the machine's first word; what comes before is of the machine that ended.
    pub(super) fn await_ready(&mut self) -> Result<Ready> {
        let began = Instant::now();
        while self.line()?.trim() != READY {
            ensure!(began.elapsed() < PATIENCE, "not {READY} after {} s", PATIENCE.as_secs());
        }
        Ok(Ready { after: began.elapsed() })
    }

    pub(super) fn run(&mut self, script: &str) -> Result<Done> {
        self.send(script)?;
        let line = self.line()?;
        parse(&line).with_context(|| format!("the answer {line:?}"))
    }

    /// Sends a script and waits for nothing.
    pub(super) fn send(&mut self, script: &str) -> Result<()> {
        let line = STANDARD.encode(script) + "\n";
        self.stream.get_mut().write_all(line.as_bytes()).context("cannot send a command")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).context("no answer")?;
        ensure!(length > 0, "the machine is gone");
        Ok(line)
    }
}

impl Monitor {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let mut monitor = Self { stream: connect(socket)? };
        monitor.await_prompt()?;
        Ok(monitor)
    }

    pub(super) fn command(&mut self, command: &str) -> Result<()> {
        writeln!(self.stream, "{command}").context("cannot order the emulator")?;
        self.await_prompt()
    }

    fn await_prompt(&mut self) -> Result<()> {
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(PROMPT) {
            self.stream.read_exact(&mut byte).context("the emulator does not answer")?;
            said.extend(byte);
        }
        Ok(())
    }
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// `0 aGVsbG8=`
fn parse(line: &str) -> Result<Done> {
    let (code, output) = line.trim_end_matches(['\r', '\n']).split_once(' ').context("no exit code")?;
    let output = STANDARD.decode(output).context("no base64")?;
    Ok(Done { code: code.parse()?, output: String::from_utf8_lossy(&output).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_code_and_an_output_that_may_be_empty() {
        assert_eq!(parse("3 aGVsbG8=\n").unwrap(), Done { code: 3, output: "hello".to_owned() });
        assert_eq!(parse("0 \n").unwrap(), Done { code: 0, output: String::new() });
        for line in ["", "ready\n", "0 *\n", "x aGVsbG8=\n"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
