//! The demo's lost packet: it is captured as a node drops it, and the file says why.

use std::{fs, fs::File, net::UdpSocket, process::Command};

use anyhow::{Context, Result, bail};
use pcap_file::pcapng::{
    PcapNgReader,
    blocks::{
        block_common::Block,
        enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
        opt_common::CommonOption,
    },
};

use super::stage::Stage;
use crate::lab::{Process, addresses::WWW4, binary};

/// A port that no VIP has.
const PORT: u16 = 81;
/// The capture of one packet that is dropped for that.
const CAPTURE: &str = "capture --reason no_such_vip --count 1 -w lost.pcapng";

impl Stage {
    /// Captures one packet to a port that no VIP has.
    pub(super) fn capture_lost_packet(&mut self) -> Result<()> {
        let folder = self.site.lab.directory();
        let (file, balancer) = (folder.join("lost.pcapng"), self.balancer(1)?);
        let mut command = Command::new(binary("maglev")?);
        command.arg("--socket").arg(balancer.socket()).args(CAPTURE.split(' ')).current_dir(&folder);
        let mut capture = Process::start("capture", balancer.netns(), &folder, &mut command)?;
        capture.await_event("the head of the file", |_| Ok(fs::metadata(&file).is_ok_and(|found| found.len() > 0)))?;
        self.site.lab.netns("client").run(|| {
            // The router deals them over both nodes by their source port.
            for _ in 0..64 {
                UdpSocket::bind("0.0.0.0:0")?.send_to(b"lost", (WWW4, PORT))?;
            }
            Ok(())
        })?;
        let status = capture.wait()?;
        let (comment, length) = first_packet(&file).with_context(|| format!("{status}: {}", capture.log()))?;
        self.seen.push(format!("lb1$ maglev {CAPTURE}"));
        self.seen.push(format!("client$ a datagram to {WWW4}:{PORT}"));
        self.seen.push(format!("the comment of the packet of {length} bytes in the file: {comment}"));
        Ok(())
    }
}

/// The comment and the length of the first packet in a file.
fn first_packet(file: &std::path::Path) -> Result<(String, u32)> {
    let mut reader = PcapNgReader::new(File::open(file)?)?;
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(EnhancedPacketBlock { original_len, options, .. }) = block?.0 {
            let comment = options.iter().find_map(|option| match option {
                EnhancedPacketOption::Common(CommonOption::Comment(comment)) => Some(comment.to_string()),
                _ => None,
            });
            return Ok((comment.context("a packet without a comment")?, original_len));
        }
    }
    bail!("no packet in the file")
}
