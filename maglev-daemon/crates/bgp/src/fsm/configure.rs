//! Other settings while a session runs: the session goes on where no message that was exchanged depends on them, and begins anew
//! where one does. It must not know where settings come from.

use std::sync::Arc;
use std::time::Duration;

use maglev_model::bgp::Effect;

use super::connections::Reason;
use super::table::Event;
use super::{Configured, Peer, Phase, Settings, Side};
use crate::wire::{Fault, Notification};

impl Peer {
    pub(super) fn configure(&mut self, Configured { neighbor, on_drain }: Configured, now: Duration) {
        let (dial, listen) = (!neighbor.passive, neighbor.passive);
        let settings = Settings { neighbor, on_drain, dial, listen, ..self.settings.clone() };
        let before = std::mem::replace(&mut self.settings, settings);
        let effects = before.neighbor.changes(&self.settings.neighbor);
        match effects.into_iter().map(|(_, effect)| effect).max() {
            Some(Effect::Session) => self.begin_anew(&before, now),
            effect => {
                self.set_pace(now);
                if effect == Some(Effect::Routes) || before.on_drain != on_drain {
                    self.send_again(&before);
                }
            }
        }
    }

    /// Ends every connection and dials with the present settings. A neighbor that would keep our prefixes over a restart keeps them
    /// over this as well: the session ends without a NOTIFICATION (RFC 4724), since packets are forwarded all the time. Other neighbors
    /// receive the reason.
    fn begin_anew(&mut self, before: &Settings, now: Duration) {
        for side in Side::BOTH {
            if self.keeps_prefixes(side, before) {
                let reason = Reason::Text("closed by us: other settings".into());
                self.event(side, Event::Closed, &reason, now);
            } else {
                let cease = Notification::new(Fault::CONFIGURATION);
                self.event(side, Event::Stop, &Reason::Ours(cease), now);
            }
        }
        self.retry_at = None;
        if self.running {
            self.backoff.reset();
            self.dial(now);
        }
    }

    /// Whether the neighbor keeps our prefixes when this connection is lost: both sides offered graceful restart, and it is the same
    /// speaker.
    fn keeps_prefixes(&self, side: Side, before: &Settings) -> bool {
        let connection = &self.connections[side as usize];
        let theirs = connection.theirs.as_ref().filter(|_| connection.phase == Phase::Established);
        self.settings.graceful_restart.is_some()
            && theirs.is_some_and(|(open, _)| open.capabilities.graceful_restart.is_some())
            && before.neighbor.remote_as == self.settings.neighbor.remote_as
    }

    /// KEEPALIVEs follow the present settings.
    fn set_pace(&mut self, now: Duration) {
        let neighbor = Arc::clone(&self.settings.neighbor);
        for connection in &mut self.connections {
            let Some((open, session)) = &mut connection.theirs else { continue };
            let pace = neighbor.pace(neighbor.hold_time.min(open.hold_time));
            if session.pace != pace {
                session.pace = pace;
                connection.keepalive_at = connection.keepalive_at.map(|at| at.min(now + pace));
            }
        }
    }

    /// Every prefix is sent again, with the attributes of the present settings.
    fn send_again(&mut self, before: &Settings) {
        let established = self.connections.iter().find(|connection| connection.phase == Phase::Established);
        let found = established.and_then(|connection| Some((connection.local?, connection.session()?.clone())));
        if let Some((local, session)) = found {
            self.rib.resend();
            let known = before.without_next_hop(&session, local);
            self.log_next_hops(&session, local, &known);
        }
    }
}
