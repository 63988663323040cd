//! The router before the nodes, and their network cards: which node, and which of its CPUs, a flow's packets come to.

use super::random::{mix, scale};

/// How equal-cost routes are chosen among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Ecmp {
    /// When a node leaves or returns, all flows are dealt anew: hashing modulo the number of routes.
    Reshuffle,
    /// Only the flows of a node that leaves move: resilient hashing.
    Resilient,
}

/// A CPU of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) cpu: usize,
}

/// The router, and how network cards deal flows to CPUs.
#[derive(Clone, Debug)]
pub(super) struct Router {
    ecmp: Ecmp,
    /// The nodes that announce the VIPs.
    live: Vec<usize>,
    /// Differs between sets of live nodes: the salt of a reshuffle.
    salt: u64,
    /// By node, how its card deals flows.
    deals: Vec<u64>,
    cpus: u32,
}

impl Router {
    /// All nodes are live.
    pub(super) fn new(ecmp: Ecmp, nodes: usize, cpus: u32) -> Self {
        let mut router = Self { ecmp, live: Vec::new(), salt: 0, deals: vec![0; nodes], cpus };
        router.set_live((0..nodes).collect());
        router
    }

    /// Where a flow's packets come to.
    pub(super) fn place(&self, route: u64) -> Place {
        let node = match self.ecmp {
            Ecmp::Reshuffle => self.live[scale(mix(route ^ self.salt), self.live.len() as u32) as usize],
            // The node with the highest draw: where it stays, the flow stays.
            Ecmp::Resilient => {
                let draw = |node: usize| mix(route ^ mix(node as u64 + 1));
                self.live.iter().copied().max_by_key(|&node| draw(node)).unwrap_or(0)
            }
        };
        let deal = route.rotate_left(32) ^ mix(self.deals[node] << 8 | node as u64);
        Place { node, cpu: scale(mix(deal), self.cpus) as usize }
    }

    /// A node's routes are withdrawn.
    pub(super) fn leave(&mut self, node: usize) {
        self.set_live(self.live.iter().copied().filter(|&live| live != node).collect());
    }

    /// A node announces its routes again.
    pub(super) fn join(&mut self, node: usize) {
        let mut live = self.live.clone();
        live.push(node);
        live.sort_unstable();
        live.dedup();
        self.set_live(live);
    }

    /// A node's network card deals flows to CPUs anew.
    pub(super) fn deal_anew(&mut self, node: usize) {
        self.deals[node] += 1;
    }

    fn set_live(&mut self, live: Vec<usize>) {
        self.salt = mix(live.iter().map(|node| 1 << node).sum());
        self.live = live;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::Random;

    /// Of 1,000 flows, those that are elsewhere after node 3 of 4 left; all are as before when it is back.
    fn moved(ecmp: Ecmp) -> usize {
        let mut random = Random::new(1, 1);
        let routes: Vec<u64> = (0..1_000).map(|_| random.next()).collect();
        let mut router = Router::new(ecmp, 4, 2);
        let places = |router: &Router| routes.iter().map(|&route| router.place(route)).collect::<Vec<_>>();
        let before = places(&router);
        router.leave(3);
        let without = places(&router);
        router.join(3);
        assert_eq!(places(&router), before);
        assert!(without.iter().all(|place| place.node < 3));
        before.iter().zip(&without).filter(|(before, without)| before.node != without.node).count()
    }

    #[test]
    fn a_reshuffle_moves_three_flows_of_four_and_resilient_hashing_one() {
        assert!((700..800).contains(&moved(Ecmp::Reshuffle)));
        assert!((200..300).contains(&moved(Ecmp::Resilient)));
    }

    #[test]
    fn a_card_that_deals_anew_moves_flows_of_its_node_alone() {
        let mut router = Router::new(Ecmp::Reshuffle, 2, 2);
        let routes: Vec<u64> = (0..1_000).map(mix).collect();
        let before: Vec<Place> = routes.iter().map(|&route| router.place(route)).collect();
        router.deal_anew(1);
        let moved = |node| {
            let differs = |(&route, before): (&u64, &Place)| before.node == node && router.place(route) != *before;
            routes.iter().zip(&before).filter(|pair| differs(*pair)).count()
        };
        assert_eq!(moved(0), 0);
        assert!((200..300).contains(&moved(1)));
    }
}
