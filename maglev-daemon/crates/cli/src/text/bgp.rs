//! The text of BGP sessions and prefixes.

use maglev_api::view::{BgpNeighbor, BgpNeighbors, BgpRoute, BgpRoutes, BgpSummary};
use maglev_model::ShownDuration;

use crate::output::{Text, table};

impl Text for BgpNeighbors {
    fn text(&self) -> String {
        let now = maglev_api::now().0;
        let row = |neighbor: &BgpNeighbor| {
            let BgpNeighbor { name, remote_as, state, since, prefixes_sent, last_error, last_error_at, .. } = neighbor;
            let BgpNeighbor { later_error, later_error_at, .. } = neighbor;
            let ago = |at: u64| ShownDuration::from_secs(now.saturating_sub(at)).to_string();
            let shown = |error: &Option<String>, at: &Option<u64>| {
                let error = error.as_ref()?;
                Some(at.map_or_else(|| error.clone(), |at| format!("{error}, {} ago", ago(at))))
            };
            let later = shown(later_error, later_error_at).map(|later| format!("; later: {later}")).unwrap_or_default();
            let error = shown(last_error, last_error_at).map(|error| error + &later);
            let [remote_as, sent] = [remote_as.to_string(), prefixes_sent.to_string()];
            [name.clone(), remote_as, state.clone(), ago(*since), sent, error.unwrap_or_else(|| "-".into())]
        };
        let columns = ["neighbor", "as", "state", "since", "prefixes sent", "last error"];
        table(columns, &["as", "prefixes sent"], self.0.iter().map(row))
    }
}

/// The number of neighbors that have a prefix, with the reason for the others. Without numbers BGP is off, or the prefix is not
/// to be announced.
pub(crate) fn announced(numbers: Option<(usize, usize)>, reason: Option<&str>) -> String {
    match (numbers, reason) {
        (None, None) => "-".to_owned(),
        (None, Some(reason)) => reason.to_owned(),
        (Some((0, _)), None) => "no".to_owned(),
        (Some((0, _)), Some(reason)) => format!("no: {reason}"),
        (Some((to, of)), None) => format!("to {to} of {of} neighbors"),
        (Some((to, of)), Some(reason)) => format!("to {to} of {of} neighbors: {reason}"),
    }
}

/// The line of `maglev status`.
pub(super) fn in_short(summary: Option<&BgpSummary>) -> String {
    let Some(BgpSummary { neighbors, established, prefixes, announced }) = summary else { return "off".to_owned() };
    let prefixes = match (*announced, *prefixes) {
        (1, 1) => "1 prefix announced".to_owned(),
        (announced, all) if announced == all => format!("{all} prefixes announced"),
        (announced, all) => format!("{announced} of {all} prefixes announced"),
    };
    format!("{established} of {neighbors} neighbors established, {prefixes}")
}

impl Text for BgpRoutes {
    fn text(&self) -> String {
        let row = |route: &BgpRoute| {
            let BgpRoute { prefix, announced: _, announced_to, neighbors, reason, vips, communities } = route;
            let state = announced(Some((*announced_to, *neighbors)), reason.as_deref());
            let communities = if communities.is_empty() { "-".to_owned() } else { communities.join(" ") };
            [prefix.to_string(), state, vips.join(" "), communities]
        };
        table(["prefix", "announced", "vips", "communities"], &[], self.0.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_shows_states_and_reasons() {
        let error = "closed by the peer: cease, administrative shutdown (6/2): \"new line card\"";
        let neighbor = BgpNeighbor {
            name: "tor1".into(),
            remote_as: 65_000,
            state: "active".into(),
            last_error: Some(error.into()),
            ..BgpNeighbor::default()
        };
        let text = BgpNeighbors(vec![neighbor.clone()]).text();
        assert!(text.contains("tor1") && text.contains("active") && text.contains(error), "{text}");
        let later = BgpNeighbor { later_error: Some("connection lost: reset".into()), ..neighbor };
        let text = BgpNeighbors(vec![later]).text();
        assert!(text.contains(&format!("{error}; later: connection lost: reset")), "{text}");
        let route = BgpRoute {
            prefix: "203.0.113.10/32".parse().unwrap(),
            announced: false,
            announced_to: 0,
            neighbors: 2,
            reason: Some("the node is drained".into()),
            vips: vec!["www".into(), "www6".into()],
            communities: vec!["65010:1".into()],
        };
        let text = BgpRoutes(vec![route]).text();
        assert!(text.contains("203.0.113.10/32") && text.contains("no: the node is drained"), "{text}");
        assert!(text.contains("www www6") && text.contains("65010:1"), "{text}");
    }

    #[test]
    fn sessions_and_prefixes_fit_in_one_line() {
        let of = |neighbors, established, prefixes, announced| {
            in_short(Some(&BgpSummary { neighbors, established, prefixes, announced }))
        };
        assert_eq!(in_short(None), "off");
        assert_eq!(of(2, 1, 3, 3), "1 of 2 neighbors established, 3 prefixes announced");
        assert_eq!(of(1, 1, 1, 1), "1 of 1 neighbors established, 1 prefix announced");
        assert_eq!(of(2, 0, 3, 0), "0 of 2 neighbors established, 0 of 3 prefixes announced");
    }
}
