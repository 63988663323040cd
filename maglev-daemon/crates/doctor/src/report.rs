//! The list of findings that checks add to, and the pages that they name. It must not know what is checked.

use maglev_api::view::{Finding, FindingLevel, Findings};

/// Pages of the manual, with their headings.
pub(crate) mod page {
    pub(crate) const INSTALL: &str = "docs/deploy.md#1-install-a-node";
    pub(crate) const NODE: &str = "docs/deploy.md#2-describe-the-node";
    pub(crate) const BACKEND: &str = "docs/deploy.md#3-prepare-each-backend";
    pub(crate) const MTU: &str = "docs/deploy.md#mtu";
    pub(crate) const VIP: &str = "docs/deploy.md#5-route-the-vip";
    pub(crate) const CONFIG: &str = "docs/config.md#maglevyaml";
    pub(crate) const DECAP_CONFIG: &str = "docs/config.md#decapyaml";
    pub(crate) const NEXT_HOPS: &str = "docs/connections.md#next-hops";
    pub(crate) const FLOWS: &str = "docs/connections.md#room-for-pinned-flows";
    pub(crate) const CHECKS: &str = "docs/health.md#health-checks-take-the-same-path-as-client-traffic";
    pub(crate) const BGP: &str = "docs/bgp.md#router-requirements";
    pub(crate) const BGP_CHANGES: &str = "docs/bgp.md#changes-while-sessions-run";
    pub(crate) const RELOAD: &str = "docs/operate.md#reload";
    pub(crate) const SYNC: &str = "docs/operate.md#out-of-sync";
    pub(crate) const LATE: &str = "docs/operate.md#late-interfaces";
    pub(crate) const DIES: &str = "docs/operate.md#when-the-daemon-dies";
    pub(crate) const DOCTOR: &str = "docs/operate.md#examine-a-node-or-backend";
    pub(crate) const LOST: &str = "docs/alerts.md";
    pub(crate) const SECURITY: &str = "docs/SECURITY.md";
    pub(crate) const FORWARDING: &str = "docs/operate.md#drain-a-node";
    #[cfg(test)]
    pub(crate) const ALL: [&str; 20] = [
        INSTALL,
        NODE,
        BACKEND,
        MTU,
        VIP,
        CONFIG,
        DECAP_CONFIG,
        NEXT_HOPS,
        FLOWS,
        CHECKS,
        BGP,
        BGP_CHANGES,
        RELOAD,
        SYNC,
        LATE,
        DIES,
        DOCTOR,
        LOST,
        SECURITY,
        FORWARDING,
    ];
}

/// Findings, as they are made.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Finding>);

impl Report {
    /// All is well.
    pub(crate) fn ok(&mut self, subject: &str, found: impl Into<String>, document: &str) {
        self.push(FindingLevel::Ok, subject, found.into(), None, document);
    }

    /// It works, with a disadvantage.
    pub(crate) fn warn(&mut self, subject: &str, found: impl Into<String>, remedy: impl Into<String>, document: &str) {
        self.push(FindingLevel::Warning, subject, found.into(), Some(remedy.into()), document);
    }

    /// It does not work.
    pub(crate) fn error(&mut self, subject: &str, found: impl Into<String>, remedy: impl Into<String>, document: &str) {
        self.push(FindingLevel::Error, subject, found.into(), Some(remedy.into()), document);
    }

    /// A fact that could not be read.
    pub(crate) fn unchecked(&mut self, subject: &str, what: &str, reason: &str) {
        let remedy = "run doctor as root on the host itself, or check it by hand";
        self.warn(subject, format!("{what} could not be checked: {reason}"), remedy, page::DOCTOR);
    }

    /// The findings.
    pub(crate) fn end(self) -> Findings {
        Findings(self.0)
    }

    fn push(&mut self, level: FindingLevel, subject: &str, found: String, remedy: Option<String>, document: &str) {
        self.0.push(Finding { level, subject: subject.to_owned(), found, remedy, document: document.to_owned() });
    }
}

/// The first names of a list, and the number of the others.
pub(crate) fn few(names: &[String]) -> String {
    const FEW: usize = 5;
    let shown = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
