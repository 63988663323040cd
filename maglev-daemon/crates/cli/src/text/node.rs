//! The text of the node and its drain.

use std::fmt::Write as _;

use maglev_api::view::{Node, NodeDrain, Stage};
use maglev_model::{ShownDuration, UnixTime};

use crate::output::Text;

pub(crate) fn stage_line(node: &Node, stage: Stage) -> String {
    let (lead, quiet) = (ShownDuration::from_secs(node.lead_seconds), ShownDuration::from_secs(node.quiet_seconds));
    let what = match stage {
        Stage::Marked if node.not_saved.is_some() => {
            "NOT saved: the node stays out of service until maglevd is next started".to_owned()
        }
        Stage::Marked => "saved: the node stays out of service until it is undrained, restarts included".to_owned(),
        Stage::Leaving => format!("routers are asked to prefer others for {lead}"),
        Stage::Withdrawing if node.announces => "all prefixes, from all neighbors".to_owned(),
        Stage::Withdrawing => "no prefix is announced: maglev.yaml has no bgp".to_owned(),
        Stage::Waiting => format!("packets that still arrive are forwarded, until none arrives for {quiet}"),
        Stage::Drained => "no packet arrives".to_owned(),
    };
    format!("{} of 5  {:<12}{what}", stage as u8 + 1, stage.as_str())
}

/// The reason why the node is not drained yet.
pub(crate) fn left(node: &Node, drain: &NodeDrain) -> String {
    let received = drain.received();
    let still = match received.as_str() {
        "" => String::new(),
        received => format!(", still arriving: {received}"),
    };
    match drain.stage() {
        Stage::Marked | Stage::Leaving => format!("routers are asked to prefer others{still}"),
        Stage::Withdrawing => format!("prefixes are being withdrawn{still}"),
        Stage::Waiting if drain.receiving.is_empty() => {
            let [quiet, needed] = [drain.quiet_seconds, node.quiet_seconds].map(ShownDuration::from_secs);
            format!("no packet arrived for {quiet} of {needed}")
        }
        Stage::Waiting => format!("packets still arrive: {received}"),
        Stage::Drained => "nothing".to_owned(),
    }
}

/// The last line. Connections are not counted: the node keeps no state of most of them.
pub(crate) fn proof(node: &Node, drain: &NodeDrain) -> String {
    let since = if drain.resumed { "since maglevd was started" } else { "while draining" };
    let (quiet, forwarded) = (ShownDuration::from_secs(node.quiet_seconds), drain.packets_forwarded);
    format!("drained: 0 VIP packets for {quiet}, {forwarded} packets forwarded {since}, safe to stop")
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
    format!("{}{reason}, ordered at {}: {how}{not_saved}", node.state().to_uppercase(), UnixTime(drain.since))
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
        row("since", &UnixTime(drain.since).to_string());
        row("reason", drain.reason.as_deref().unwrap_or("none given"));
        for passed in &drain.stages {
            let ago = ShownDuration::from_secs(passed.seconds);
            row("stage", &format!("{}, {ago} ago", stage_line(self, passed.stage)));
        }
        match drain.stage() {
            Stage::Drained => row("proof", &proof(self, drain)),
            _ => row("left", &left(self, drain)),
        }
        if drain.last_node {
            row("last node", "no other node announces this node's VIPs");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use maglev_api::testing::draining;

    use super::*;
    use maglev_api::view::Receiving;

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
    fn an_unfinished_drain_names_the_vips_that_still_receive() {
        assert_eq!(left_of(&draining(Stage::Leaving)), "routers are asked to prefer others");
        let still = "still arriving: dns 1 packet/s, www 2950 packets/s";
        assert_eq!(left_of(&receiving(Stage::Leaving)), format!("routers are asked to prefer others, {still}"));
        assert_eq!(left_of(&receiving(Stage::Withdrawing)), format!("prefixes are being withdrawn, {still}"));
        let still = "packets still arrive: dns 1 packet/s, www 2950 packets/s";
        assert_eq!(left_of(&receiving(Stage::Waiting)), still);
        assert_eq!(left_of(&draining(Stage::Waiting)), "no packet arrived for 0s of 10s");
    }

    #[test]
    fn the_proof_is_the_last_line_and_part_of_the_status() {
        let mut node = draining(Stage::Drained);
        let line = "drained: 0 VIP packets for 10s, 41233 packets forwarded while draining, safe to stop";
        assert_eq!(proof(&node, node.drain.as_ref().unwrap()), line);
        assert!(node.text().ends_with(&format!("proof      {line}\n")), "{}", node.text());
        assert_eq!(in_short(&node), "DRAINED (disk), ordered at 2023-11-14T22:13:20Z: out of service, safe to stop");
        node.drain.as_mut().unwrap().resumed = true;
        assert!(proof(&node, node.drain.as_ref().unwrap()).contains("forwarded since maglevd was started, safe"));
        assert_eq!(Node::default().text(), "node       serving\n");
        assert_eq!(in_short(&Node::default()), "serving");
        let line = in_short(&receiving(Stage::Waiting));
        let expected = "DRAINING (disk), ordered at 2023-11-14T22:13:20Z: packets still arrive: dns 1 packet/s";
        assert!(line.starts_with(expected), "{line}");
    }
}
