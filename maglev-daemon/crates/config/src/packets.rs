//! The `packets` section of `maglev.yaml`: packets to VIPs' addresses that no VIP takes. It must not know how they are handled.

use maglev_model::{PacketSettings, parse_echo, parse_unserved};

use super::decode::Field;

pub(super) fn decode(field: &Field<'_>) -> Option<PacketSettings> {
    let section = field.section(&["unknown_port", "echo"], &[])?;
    let default = PacketSettings::default();
    let unknown_port =
        section.get("unknown_port").map_or(Some(default.unknown_port), |field| field.parse(parse_unserved));
    let echo = section.get("echo").map_or(Some(default.echo), |field| field.parse(parse_echo));
    Some(PacketSettings { unknown_port: unknown_port?, echo: echo? })
}
