//! A pcapng file (draft-ietf-opsawg-pcapng) of captured packets: one interface for each that packets came in by, and one for
//! packets as they were sent. It must not know the daemon.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use maglev_api::view::{CapturedPacket, from_hex};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};

/// The directions in a packet's flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// The interface of packets that left.
const SENT: &str = "sent";

/// A file that is being written. What is in it is whole after each packet.
pub(super) struct Capture<W: Write> {
    out: W,
    writer: PcapNgWriter<Vec<u8>>,
    /// In the order of their numbers.
    interfaces: Vec<String>,
    packets: u64,
    bytes: u64,
}

impl<W: Write> Capture<W> {
    /// Writes the head of the file.
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let application = SectionHeaderOption::UserApplication(Cow::Owned(format!("maglev {}", maglev_api::RELEASE)));
        let section = SectionHeaderBlock { options: vec![application], ..SectionHeaderBlock::default() };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section).map_err(unwritable)?;
        let mut capture = Self { out, writer, interfaces: Vec::new(), packets: 0, bytes: 0 };
        capture.flush()?;
        Ok(capture)
    }

    /// The packets that were written.
    pub(super) const fn packets(&self) -> u64 {
        self.packets
    }

    /// Writes a packet, as it came in and as it left, unless the file would be larger than `most` bytes: then nothing is written, and
    /// the answer is false.
    pub(super) fn write(&mut self, packet: &CapturedPacket, most: u64) -> io::Result<bool> {
        let comment = packet.to_string();
        self.add(packet, (&packet.interface, INBOUND, packet.length, &packet.frame), &comment)?;
        if let Some((length, bytes)) = packet.sent_length.zip(packet.sent.as_ref()) {
            self.add(packet, (SENT, OUTBOUND, length, bytes), &comment)?;
        }
        if self.bytes + self.writer.get_ref().len() as u64 > most {
            self.writer.get_mut().clear();
            return Ok(false);
        }
        self.flush()?;
        self.packets += 1;
        Ok(true)
    }

    fn add(
        &mut self,
        packet: &CapturedPacket,
        (interface, direction, original_len, bytes): (&str, u32, u32, &str),
        comment: &str,
    ) -> io::Result<()> {
        let data = from_hex(bytes).ok_or_else(|| io::Error::other("maglevd sent a packet that is not hexadecimal"))?;
        let interface_id = self.interface(interface)?;
        let options = vec![
            EnhancedPacketOption::Common(CommonOption::Comment(Cow::Borrowed(comment))),
            EnhancedPacketOption::Flags(direction),
        ];
        let timestamp = Duration::from_nanos(packet.unix_nanoseconds);
        let data = Cow::Owned(data);
        let block = EnhancedPacketBlock { interface_id, timestamp, original_len, data, options };
        self.writer.write_pcapng_block(block).map_err(unwritable)?;
        Ok(())
    }

    /// The number of an interface, which is described first if it is new.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        let number = match self.interfaces.iter().position(|known| known == name) {
            Some(number) => number,
            None => {
                let options = vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                ];
                let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
                self.writer.write_pcapng_block(block).map_err(unwritable)?;
                self.interfaces.push(name.to_owned());
                self.interfaces.len() - 1
            }
        };
        u32::try_from(number).map_err(io::Error::other)
    }

    /// Writes what was put together, at once.
    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.writer.get_mut();
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)?;
        bytes.clear();
        self.out.flush()
    }
}

/// Nothing that is written into memory fails but by what it is.
fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::PcapNgReader;
    use pcap_file::pcapng::blocks::block_common::Block;

    fn packet() -> CapturedPacket {
        CapturedPacket {
            unix_nanoseconds: 1_764_587_897_123_456_789,
            interface: "eth0".into(),
            outcome: "forwarded".into(),
            reason: "transmitted".into(),
            vip: Some("www".into()),
            length: 1_500,
            frame: "0001ff".into(),
            sent_length: Some(1_520),
            sent: Some("45".into()),
            ..CapturedPacket::default()
        }
    }

    #[test]
    fn packets_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        let mut capture = Capture::begin(&mut bytes).unwrap();
        let dropped = CapturedPacket { sent_length: None, sent: None, outcome: "dropped".into(), ..packet() };
        assert!(capture.write(&packet(), u64::MAX).unwrap() && capture.write(&dropped, u64::MAX).unwrap());
        assert_eq!(capture.packets(), 2);
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut read = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap().0 {
                Block::InterfaceDescription(block) => read.push(format!("{:?}", block.options[0])),
                Block::EnhancedPacket(block) => {
                    let EnhancedPacketOption::Common(CommonOption::Comment(comment)) = &block.options[0] else {
                        panic!("{:?}", block.options)
                    };
                    let EnhancedPacketBlock { interface_id, timestamp, original_len, ref data, .. } = block;
                    assert_eq!(timestamp, Duration::from_nanos(1_764_587_897_123_456_789));
                    read.push(format!("{interface_id} {original_len} {data:?} {comment}"));
                }
                other => panic!("{other:?}"),
            }
        }
        let expected = [
            r#"IfName("eth0")"#,
            "0 1500 [0, 1, 255] forwarded: transmitted; vip www",
            r#"IfName("sent")"#,
            "1 1520 [69] forwarded: transmitted; vip www",
            "0 1500 [0, 1, 255] dropped: transmitted; vip www",
        ];
        // An interface is described before its first packet.
        assert_eq!(read, expected);
    }

    #[test]
    fn a_file_is_never_larger_than_it_may_be() {
        let mut bytes = Vec::new();
        let mut capture = Capture::begin(&mut bytes).unwrap();
        assert!(!capture.write(&packet(), 150).unwrap());
        assert!(PcapNgReader::new(&bytes[..]).unwrap().next_block().is_none());
        assert!(bytes.len() <= 150);
    }
}
