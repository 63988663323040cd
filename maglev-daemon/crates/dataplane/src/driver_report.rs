//! What the driver of an interface makes of native XDP there: its facts are read, and judged by the table of `drivers`. It must not
//! know how a program is attached.

use std::fs;

use maglev_net::links::Link;
use maglev_net::xdp;
use nix::errno::Errno;

use super::drivers::{self, Facts, Finding, Weight};
use super::error::DataplaneError;
use super::{machine, offloads};

/// What an interface is judged with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    /// The interfaces that exist: bonds have members.
    pub(super) links: &'a [Link],
    /// Whether every packet is sent on the interface that received it.
    pub(super) alone: bool,
}

/// The findings about one interface in native mode; none in generic mode, where drivers demand nothing.
#[derive(Debug, Default)]
pub(super) struct DriverReport {
    interface: String,
    findings: Vec<Finding>,
}

impl DriverReport {
    /// For an interface that exists.
    pub(super) fn read(name: &str, index: u32, mtu: u32, surroundings: Surroundings<'_>) -> Self {
        let Surroundings { links, alone } = surroundings;
        let facts = facts(name, index, mtu);
        let mut findings = drivers::findings(name, &facts, alone);
        let members = links.iter().filter(|link| link.master == Some(index));
        for Link { name, index, mtu, .. } in members.filter(|_| facts.driver.as_deref() == Some(drivers::BONDING)) {
            let of_member = drivers::findings(name, &self::facts(name, *index, *mtu), alone).into_iter();
            findings.extend(of_member.map(|found| Finding { text: format!("member {name}: {}", found.text), ..found }));
        }
        Self { interface: name.to_owned(), findings }
    }

    /// Refuses an interface that its driver will refuse.
    pub(super) fn verdict(&self) -> Result<(), DataplaneError> {
        let reasons = self.of(|weight| weight == Weight::Refused);
        if reasons.is_empty() {
            return Ok(());
        }
        Err(DataplaneError::DriverLimit { interface: self.interface.clone(), reason: reasons.join("; ") })
    }

    /// The probable causes of a refusal.
    pub(super) fn causes(&self, errno: Errno) -> Option<String> {
        let causes = self.of(|weight| matches!(weight, Weight::Cause(of) if of.is_none_or(|of| of == errno)));
        (!causes.is_empty()).then(|| causes.join("; or "))
    }

    /// The limits that the driver refuses programs for, and the disadvantages that a setting would remove.
    pub(super) fn advice(&self) -> [Vec<String>; 2] {
        [Weight::Refused, Weight::Warning]
            .map(|wanted| self.of(|weight| weight == wanted).into_iter().map(str::to_owned).collect())
    }

    /// The disadvantages.
    pub(super) fn warnings(&self) -> Vec<String> {
        let texts = self.of(|weight| matches!(weight, Weight::Warning | Weight::Moment));
        texts.into_iter().map(|text| format!("{}: {text}", self.interface)).collect()
    }

    fn of(&self, wanted: impl Fn(Weight) -> bool) -> Vec<&str> {
        self.findings.iter().filter(|finding| wanted(finding.weight)).map(|finding| finding.text.as_str()).collect()
    }
}

/// The facts about an interface.
pub(super) fn facts(name: &str, index: u32, mtu: u32) -> Facts {
    let driver = offloads::driver(name);
    Facts {
        out_of_tree: driver.as_deref().is_some_and(is_out_of_tree),
        driver,
        mtu,
        channels: offloads::channels(name),
        lro: offloads::merges(name),
        features: xdp::features(index),
        cpus: machine::possible_cpus().ok(),
        page: machine::page(),
    }
}

/// Whether a driver is a module that was built outside of the kernel's source tree, as the kernel marks it with an `O`.
fn is_out_of_tree(driver: &str) -> bool {
    let is_name = driver.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character));
    is_name && fs::read_to_string(format!("/sys/module/{driver}/taint")).is_ok_and(|marks| marks.contains('O'))
}
