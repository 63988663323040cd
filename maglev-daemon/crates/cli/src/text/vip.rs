//! The text of VIPs.

use maglev_api::view;
use maglev_model::unserved_word;

use super::bgp;
use crate::output::{Text, table};

/// VIPs as a table.
pub(super) fn list(vips: &[view::Vip]) -> String {
    let row = |vip: &view::Vip| {
        let view::Vip { name, address, port, protocol, pool, when_empty: _, affinity: _, error, health } = vip;
        let view::VipHealth { serving, backends, panic, announced, announced_to, neighbors, withheld } = health;
        let panic = if *panic { "PANIC: " } else { "" };
        let serving = match error {
            Some(error) => format!("ERROR, not served: {error}"),
            None => format!("{panic}{serving} of {backends}"),
        };
        let numbers = announced.map(|_| (announced_to.unwrap_or_default(), neighbors.unwrap_or_default()));
        let announced = bgp::announced(numbers, withheld.as_deref());
        let [address, port, protocol] = [address.to_string(), port.to_string(), protocol.to_string()];
        [name.clone(), address, port, protocol, pool.clone(), serving, announced]
    };
    let header = ["name", "address", "port", "protocol", "pool", "serving", "announced"];
    table(header, &["port"], vips.iter().map(row))
}

impl Text for Vec<view::Vip> {
    fn text(&self) -> String {
        list(self)
    }
}

impl Text for view::Vip {
    fn text(&self) -> String {
        let unserved = unserved_word(self.when_empty.into());
        format!("{}when empty     {unserved}\naffinity       {}\n", list(std::slice::from_ref(self)), self.affinity)
    }
}

#[cfg(test)]
mod tests {
    use maglev_model::Protocol;

    use super::*;

    #[test]
    fn a_vip_shows_its_usable_backends_and_its_announcement() {
        let vip = |health| view::Vip {
            name: "www".into(),
            address: "203.0.113.10".parse().unwrap(),
            port: view::Port(maglev_model::Ports::Any),
            protocol: Protocol::Tcp.into(),
            pool: "web".into(),
            when_empty: view::Unserved::Drop,
            affinity: "5-tuple".into(),
            error: None,
            health,
        };
        let (announced, announced_to, neighbors) = (Some(true), Some(2), Some(2));
        let serving = view::VipHealth { serving: 2, backends: 3, ..view::VipHealth::default() };
        let well = view::VipHealth { announced, announced_to, neighbors, ..serving.clone() };
        let withheld = Some("the node is drained".to_owned());
        let ill =
            view::VipHealth { panic: true, announced: Some(false), announced_to: Some(0), withheld, ..well.clone() };
        let off = view::VipHealth { withheld: Some("BGP off".to_owned()), ..serving };
        let text = vec![vip(well), vip(ill), vip(off), vip(view::VipHealth::default())].text();
        let ends = [
            "SERVING        ANNOUNCED",
            "2 of 3         to 2 of 2 neighbors",
            "PANIC: 2 of 3  no: the node is drained",
            "2 of 3         BGP off",
            "0 of 0         -",
        ];
        for (line, end) in text.lines().zip(ends) {
            assert!(line.ends_with(end), "{text}");
        }
    }
}
