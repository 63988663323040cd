//! `maglev node`: whether the node serves, and how it is taken out of service. It must not know how the daemon does it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

use clap::Subcommand;

use super::drain::Progress;
use super::interrupt::Interrupt;
use super::output::{Printer, Text};
use super::status::duration;
use super::{Client, Failure};
use crate::api::client::ClientError;
use crate::api::view::{NewDrain, Node, NodeDrain, Stage};
use crate::model::{ShownDuration, parse_reason, parse_timeout};

/// How often the daemon is asked while one waits.
const POLL: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Whether the node serves, and how far a drain has come
    Status,
    /// Take the node out of service: routers turn to others, then packets stop, then it is safe to stop
    Drain {
        /// Show the stages as they pass, until no packet comes in any more; then it is safe to stop
        #[arg(long)]
        wait: bool,
        /// How long to wait at most, 1s to 24h; without end if not given
        #[arg(long, requires = "wait", value_parser = parse_timeout, value_name = "DURATION")]
        timeout: Option<Duration>,
        /// Why, for the log, for whoever looks at the status, and for routers
        #[arg(long, value_parser = parse_reason, value_name = "TEXT")]
        reason: Option<String>,
        /// No other node announces this one's VIPs: say that nobody will serve them (so does drain.last_node)
        #[arg(long)]
        last_node: bool,
    },
    /// Put the node back into service, whatever stage its drain is in
    Undrain,
}

pub(super) fn run(command: &Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::Status => printer.answer(&client.get::<Node>("/v1/node")?),
        Command::Drain { wait, timeout, reason, last_node } => {
            let ordered = NewDrain { reason: reason.clone(), last_node: *last_node };
            let interrupt = wait.then(|| Interrupt::says("see `maglev node status`")).transpose()?;
            let node = order(client, *wait, &ordered)?;
            if let Some(interrupt) = interrupt {
                interrupt.now_says("the node goes on draining; `maglev node undrain` takes it back");
            }
            warn(&node);
            match wait {
                true => await_end(client, printer, *timeout),
                false => printer.done(&node, "the node is draining: `maglev node status` tells how far it is"),
            }
        }
        Command::Undrain => {
            let node = client.post::<Node>("/v1/node/undrain", &())?;
            if let Some(reason) = &node.not_saved {
                eprintln!(
                    "maglev: warning: the undrain is not saved: {reason}; the node is drained again when maglevd is next \
                     started, unless it can be saved before"
                );
            }
            printer.done(&node, "the node serves again")
        }
    }
}

/// Orders the drain. Who waits does not mind that somebody else ordered it before.
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

/// What an operator should know, and may know already.
fn warn(node: &Node) {
    if let Some(reason) = &node.not_saved {
        eprintln!(
            "maglev: warning: the drain is not saved: {reason}; the node is out of service until maglevd is next started, \
             and saving is retried"
        );
    }
    if node.drain.as_ref().is_some_and(|drain| drain.last_node) {
        eprintln!("maglev: warning: no other node announces the VIPs of this one: nobody will serve them");
    }
    if !node.announces {
        eprintln!(
            "maglev: warning: this node announces nothing (maglev.yaml has no `bgp`): have its packets sent elsewhere by \
             whatever sends them here"
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

/// A line for each stage that was not shown yet. `shown` is the last one that was; one that comes again comes after it.
fn news(node: &Node, drain: &NodeDrain, shown: &mut Option<Stage>) -> Vec<String> {
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

fn stage_line(node: &Node, stage: Stage) -> String {
    let (lead, quiet) = (duration(node.lead_seconds), duration(node.quiet_seconds));
    let what = match stage {
        Stage::Marked if node.not_saved.is_some() => {
            "NOT saved: the node stays out of service until maglevd is next started".to_owned()
        }
        Stage::Marked => "saved: the node stays out of service until it is undrained, restarts included".to_owned(),
        Stage::Leaving => format!("routers are asked to prefer others for {lead}"),
        Stage::Withdrawing if node.announces => "routers are told that nothing is announced here any more".to_owned(),
        Stage::Withdrawing => "nothing is announced here".to_owned(),
        Stage::Waiting => format!("what still comes in is forwarded, until nothing does for {quiet}"),
        Stage::Drained => "no packet comes in".to_owned(),
    };
    format!("{} of 5  {:<12}{what}", stage as u8 + 1, stage.as_str())
}

/// What keeps the node from being drained.
fn left(node: &Node, drain: &NodeDrain) -> String {
    let received = drain.received();
    let still = match received.as_str() {
        "" => String::new(),
        received => format!(", still coming in: {received}"),
    };
    match drain.stage() {
        Stage::Marked | Stage::Leaving => format!("routers are asked to prefer others{still}"),
        Stage::Withdrawing => format!("routers are being told{still}"),
        Stage::Waiting if drain.receiving.is_empty() => {
            format!("no packet came in for {} of {}", duration(drain.quiet_seconds), duration(node.quiet_seconds))
        }
        Stage::Waiting => format!("packets still come in: {received}"),
        Stage::Drained => "nothing".to_owned(),
    }
}

/// The last line. Connections are not counted: nothing of most of them is remembered.
fn proof(node: &Node, drain: &NodeDrain) -> String {
    let since = if drain.resumed { "since maglevd was started" } else { "while draining" };
    let (quiet, forwarded) = (node.quiet_seconds, drain.packets_forwarded);
    format!("drained: 0 VIP packets for {quiet} s, {forwarded} packets forwarded {since}, safe to stop")
}

/// A line of `maglev status`.
pub(super) fn in_short(node: &Node) -> String {
    let not_saved = node.not_saved.as_ref().map_or_else(String::new, |why| format!("; NOT SAVED: {why}"));
    let Some(drain) = &node.drain else {
        let serves = node.unable.as_ref().map_or_else(|| "serving".to_owned(), |why| format!("NOT FORWARDING: {why}"));
        return format!("{serves}{not_saved}");
    };
    let reason = drain.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let how = match drain.stage() {
        Stage::Drained => "out of service, safe to stop".to_owned(),
        _ => left(node, drain),
    };
    format!("{}{reason}, ordered at {} (Unix time): {how}{not_saved}", node.state().to_uppercase(), drain.since)
}

impl Text for Node {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<11}{value}");
        };
        match &self.unable {
            Some(why) if self.drain.is_none() => row("node", &format!("NOT FORWARDING: {why}")),
            _ => row("node", self.state()),
        }
        if let Some(reason) = &self.not_saved {
            row("not saved", &format!("{reason}; holds until maglevd is next started"));
        }
        let Some(drain) = &self.drain else { return text };
        row("since", &format!("{} (Unix time)", drain.since));
        row("reason", drain.reason.as_deref().unwrap_or("none given"));
        for passed in &drain.stages {
            let ago = duration(passed.seconds);
            row("stage", &format!("{}, {ago} ago", stage_line(self, passed.stage)));
        }
        match drain.stage() {
            Stage::Drained => row("proof", &proof(self, drain)),
            _ => row("left", &left(self, drain)),
        }
        if drain.last_node {
            row("last node", "no other node announces the VIPs of this one");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::PassedStage;
    use crate::api::view::Receiving;

    /// A node that has come to this stage, one second after the other.
    fn draining(last: Stage) -> Node {
        let stages = Stage::ALL.into_iter().take_while(|stage| *stage <= last);
        let stages = stages.zip(1..).map(|(stage, at)| PassedStage { stage, at: 1_700_000_000 + at, seconds: 9 - at });
        let drain = NodeDrain {
            since: 1_700_000_000,
            reason: Some("disk".into()),
            stages: stages.collect(),
            packets_forwarded: 41_233,
            ..NodeDrain::default()
        };
        Node {
            drain: Some(drain),
            unable: None,
            announces: true,
            last_node: false,
            lead_seconds: 10,
            quiet_seconds: 10,
            not_saved: None,
        }
    }

    fn receiving(last: Stage) -> Node {
        let mut node = draining(last);
        let receiving = |vip: &str, packets_per_second| Receiving { vip: vip.into(), packets_per_second };
        node.drain.as_mut().unwrap().receiving = vec![receiving("dns", 1), receiving("www", 2_950)];
        node
    }

    fn left_of(node: &Node) -> String {
        left(node, node.drain.as_ref().unwrap())
    }

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

    #[test]
    fn what_is_left_names_the_vips_that_still_receive() {
        assert_eq!(left_of(&draining(Stage::Leaving)), "routers are asked to prefer others");
        let still = "still coming in: dns 1 packet/s, www 2950 packets/s";
        assert_eq!(left_of(&receiving(Stage::Leaving)), format!("routers are asked to prefer others, {still}"));
        assert_eq!(left_of(&receiving(Stage::Withdrawing)), format!("routers are being told, {still}"));
        let still = "packets still come in: dns 1 packet/s, www 2950 packets/s";
        assert_eq!(left_of(&receiving(Stage::Waiting)), still);
        assert_eq!(left_of(&draining(Stage::Waiting)), "no packet came in for 0s of 10s");
    }

    #[test]
    fn the_last_line_is_the_proof_and_the_status_tells_it_too() {
        let mut node = draining(Stage::Drained);
        let line = "drained: 0 VIP packets for 10 s, 41233 packets forwarded while draining, safe to stop";
        assert_eq!(proof(&node, node.drain.as_ref().unwrap()), line);
        assert!(node.text().ends_with(&format!("proof      {line}\n")), "{}", node.text());
        assert_eq!(in_short(&node), "DRAINED (disk), ordered at 1700000000 (Unix time): out of service, safe to stop");
        node.drain.as_mut().unwrap().resumed = true;
        assert!(proof(&node, node.drain.as_ref().unwrap()).contains("forwarded since maglevd was started, safe"));
        assert_eq!(Node::default().text(), "node       serving\n");
        assert_eq!(in_short(&Node::default()), "serving");
        let line = in_short(&receiving(Stage::Waiting));
        let expected = "DRAINING (disk), ordered at 1700000000 (Unix time): packets still come in: dns 1 packet/s";
        assert!(line.starts_with(expected), "{line}");
    }
}
