//! `maglev node`: the node's state, drain and undrain. It must not know how the daemon does it.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

use clap::Subcommand;
use maglev_api::client::ClientError;
use maglev_api::view::{Done, NewDrain, NewStop, Node, NodeDrain, Stage};
use maglev_model::{ShownDuration, parse_reason, parse_timeout};

use super::interrupt::Interrupt;
use super::output::Printer;
use super::progress::Progress;
use super::text::node::{left, proof, stage_line};
use super::{Client, Failure};

/// The interval between two requests for the state.
const POLL: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// The node's state, and the stage of its drain
    Status,
    /// Take the node out of service: withdraw its prefixes, wait until no packet arrives; then it is safe to stop
    Drain {
        /// Show each stage and wait until no packet arrives; then it is safe to stop
        #[arg(long)]
        wait: bool,
        /// How long to wait at most, 1s to 24h; without end if not given
        #[arg(long, requires = "wait", value_parser = parse_timeout, value_name = "DURATION")]
        timeout: Option<Duration>,
        /// The reason, for the log, the status, and the neighbors
        #[arg(long, value_parser = parse_reason, value_name = "TEXT")]
        reason: Option<String>,
        /// No other node announces this node's VIPs: warn that they will be without service (drain.last_node does the same)
        #[arg(long)]
        last_node: bool,
    },
    /// Put the node back into service, in any stage of its drain
    Undrain,
    /// Stop the daemon, as SIGTERM does
    Stop {
        /// Detach the program whatever dataplane.on_stop says: nothing is left
        #[arg(long)]
        detach: bool,
        /// Detach even if the node is not drained and connections break
        #[arg(long, requires = "detach")]
        force: bool,
    },
}

pub(super) fn run(command: &NodeCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        NodeCommand::Status => printer.answer(&client.get::<Node>("/v1/node")?),
        NodeCommand::Drain { wait, timeout, reason, last_node } => {
            let ordered = NewDrain { reason: reason.clone(), last_node: *last_node };
            let interrupt = wait.then(|| Interrupt::says("see `maglev node status`")).transpose()?;
            let node = order(client, *wait, &ordered)?;
            if let Some(interrupt) = interrupt {
                interrupt.now_says("the node goes on draining; `maglev node undrain` reverses it");
            }
            warn(&node);
            match wait {
                true => await_end(client, printer, *timeout),
                false => printer.done(&node, "the node is draining: `maglev node status` shows the stage"),
            }
        }
        NodeCommand::Undrain => {
            let node = client.post::<Node>("/v1/node/undrain", &())?;
            if let Some(reason) = &node.not_saved {
                eprintln!(
                    "maglev: warning: the undrain is not saved: {reason}; the node is drained again when maglevd is next \
                     started, unless it can be saved before"
                );
            }
            printer.done(&node, "the node serves again")
        }
        NodeCommand::Stop { detach, force } => {
            let done = client.post::<Done>("/v1/node/stop", &NewStop { detach: *detach, force: *force })?;
            let said = if *detach { "the daemon stops, and the program is detached" } else { "the daemon stops" };
            printer.done(&done, said)
        }
    }
}

/// Requests the drain. With `wait`, a node that is already draining is no error.
fn order(client: &Client, wait: bool, order: &NewDrain) -> Result<Node, Failure> {
    let ordered = client.post("/v1/node/drain", order);
    if wait && let Err(ClientError::Refused(refused)) = &ordered {
        let node = client.get::<Node>("/v1/node")?;
        if node.drain.is_some() {
            eprintln!("maglev: {refused}; waiting for that");
            return Ok(node);
        }
    }
    Ok(ordered?)
}

/// Prints the warnings about a drain.
fn warn(node: &Node) {
    if let Some(reason) = &node.not_saved {
        eprintln!(
            "maglev: warning: the drain is not saved: {reason}; the node is out of service until maglevd is next started, \
             and saving is retried"
        );
    }
    if node.drain.as_ref().is_some_and(|drain| drain.last_node) {
        eprintln!("maglev: warning: no other node announces this node's VIPs: they will be without service");
    }
    if !node.announces {
        eprintln!(
            "maglev: warning: this node announces no prefix (maglev.yaml has no `bgp`): route its packets to other nodes by \
             other means"
        );
    }
}

fn await_end(client: &Client, printer: &Printer, timeout: Option<Duration>) -> Result<(), Failure> {
    let began = Instant::now();
    let mut progress = Progress::new(io::stderr(), io::stderr().is_terminal());
    let mut shown = None;
    loop {
        let node = client.get::<Node>("/v1/node")?;
        let Some(drain) = &node.drain else {
            progress.clear();
            return Err(Failure::Waited("the node was undrained while it drained: it serves".into()));
        };
        for line in news(&node, drain, &mut shown) {
            progress.clear();
            eprintln!("{line}");
        }
        if drain.stage() == Stage::Drained {
            progress.clear();
            return printer.done(&node, &proof(&node, drain));
        }
        let (left, waited) = (left(&node, drain), began.elapsed());
        if let Some(timeout) = timeout.filter(|timeout| waited >= *timeout) {
            progress.clear();
            let timeout = ShownDuration(timeout);
            return Err(Failure::Waited(format!(
                "the node is not drained after {timeout}: {left}; it goes on draining"
            )));
        }
        progress.show(&format!("  {left}"), waited);
        thread::sleep(POLL);
    }
}

/// A line for each stage that was not shown yet. `shown` is the last one that was; a stage that repeats is shown again.
pub(super) fn news(node: &Node, drain: &NodeDrain, shown: &mut Option<Stage>) -> Vec<String> {
    let last = drain.stage();
    let is_new = |stage: &Stage| match *shown {
        Some(shown) if last < shown => *stage == last,
        Some(shown) => *stage > shown,
        None => true,
    };
    let lines = drain.stages.iter().map(|passed| passed.stage).filter(is_new).map(|stage| stage_line(node, stage));
    let lines = lines.collect();
    *shown = Some(last);
    lines
}

#[cfg(test)]
mod tests {
    use maglev_api::testing::draining;

    use super::*;

    #[test]
    fn each_stage_is_shown_once_and_again_if_it_comes_again() {
        let mut shown = None;
        let mut lines = |node: &Node| news(node, node.drain.as_ref().unwrap(), &mut shown);
        let first = lines(&draining(Stage::Leaving));
        assert!(first[0].starts_with("1 of 5  marked      saved"), "{first:?}");
        assert_eq!(first[1..], ["2 of 5  leaving     routers are asked to prefer others for 10s"]);
        assert!(lines(&draining(Stage::Leaving)).is_empty());
        assert_eq!(lines(&draining(Stage::Drained)).len(), 3);
        assert!(lines(&draining(Stage::Drained)).is_empty());
        // Clocks are rounded.
        let mut rounded = draining(Stage::Drained);
        rounded.drain.as_mut().unwrap().stages.iter_mut().for_each(|passed| passed.at += 1);
        assert!(lines(&rounded).is_empty());
        let again = draining(Stage::Waiting);
        let line = lines(&again);
        assert!(line.len() == 1 && line[0].starts_with("4 of 5  waiting     "), "{line:?}");
    }
}
