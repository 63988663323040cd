//! The demo for people: bars, proofs, and commands to try.

use std::fmt::Write;

use anyhow::Result;

use super::{StepReport, evidence::Evidence, health::Lost, riders::Ridden, share::Share, stage::Stage};
use crate::lab::{
    Packets,
    addresses::{WWW4, WWW6},
    binary,
};

/// Width of a bar that means all requests, in characters.
const WIDTH: f64 = 60.0;

/// A step with a bar for each backend.
pub(super) fn step(report: &StepReport) -> String {
    let StepReport { title, commands, seen, requests, failed, failures, lost, riders, shares } = report;
    let judged: u64 = shares.iter().map(|share| share.requests).sum();
    let mut text = format!("\n{title}\n");
    for command in commands {
        line(&mut text, format_args!("  {command}"));
    }
    for seen in seen {
        line(&mut text, format_args!("    {seen}"));
    }
    for share in shares {
        let Share { backend, weight, requests, fraction, expected, tolerance, within } = share;
        line(
            &mut text,
            format_args!(
                "  {backend:<6} weight {weight:>3} {:<30} {:>5.1} %  {requests:>5} of {expected:.0} ± {tolerance:.0} {}",
                bar(*fraction),
                fraction * 100.0,
                if *within { "ok" } else { "OFF" }
            ),
        );
    }
    if let Some(Ridden { held, broken, bytes, downloaded, seconds, failures: _ }) = riders {
        line(
            &mut text,
            format_args!(
                "  {held} held connections, {bytes} bytes; a download of {downloaded} bytes in {seconds:.0} s; {broken} broken"
            ),
        );
    }
    if let Some(Lost { backend, in_flight, refused }) = lost {
        line(
            &mut text,
            format_args!(
                "  {in_flight} requests were in flight on {backend} and failed; {refused} connections were refused until it was \
                 found out, and tried again"
            ),
        );
    }
    line(&mut text, format_args!("  {judged} requests after the change, {requests} in all, {failed} failed"));
    for failure in failures {
        line(&mut text, format_args!("  FAILED {failure}"));
    }
    text
}

/// The proofs, a line each.
pub(super) fn evidence(evidence: &Evidence) -> String {
    let Evidence { native_xdp, packets, gateways } = evidence;
    let Packets { vips, transmitted, redirected, answered, checks, decapsulated } = packets;
    format!(
        "\nproofs\n  native XDP, says netlink: {}\n  packets to VIPs {vips} = encapsulated {} ({transmitted} transmitted, \
         {redirected} redirected) and {answered} answered with the MTU\n  decapsulated {decapsulated} = encapsulated and {checks} \
         packets of checks\n  the only routes to the VIPs lead to {}\n\n",
        native_xdp.join(", "),
        transmitted + redirected,
        gateways.join(", ")
    )
}

/// Hints for a lab that was kept.
pub(super) fn commands_to_try(stage: &Stage) -> Result<String> {
    let client = format!("nsenter --net={}", stage.site.lab.netns("client").path().display());
    let maglev = binary("maglev")?.display().to_string();
    let mut text = "\nthe lab stands; try\n".to_owned();
    line(&mut text, format_args!("  {client} curl http://{WWW4}/"));
    line(&mut text, format_args!("  {client} curl 'http://[{WWW6}]/'"));
    for balancer in &stage.site.balancers {
        line(&mut text, format_args!("  {maglev} --socket {} status", balancer.socket().display()));
    }
    if let Some(balancer) = stage.site.balancers.first() {
        let socket = balancer.socket().display().to_string();
        line(&mut text, format_args!("  {maglev} --socket {socket} backend weight web web3 50"));
        line(&mut text, format_args!("  {maglev} --socket {socket} flow explain 198.51.100.2:40000 {WWW4}:80 tcp"));
    }
    text += "remove it with\n  cargo xtask demo --clean\n\n";
    Ok(text)
}

/// A bar in eighths of a character.
fn bar(fraction: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (fraction.clamp(0.0, 1.0) * WIDTH * 8.0).round() as usize;
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

/// Writing to a string cannot fail.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{arguments}");
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn bars_are_as_long_as_their_fraction() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.5), "█".repeat(30));
        assert_eq!(bar(1.0 / 480.0), "▏");
        assert_eq!(bar(2.0), "█".repeat(60));
    }
}
