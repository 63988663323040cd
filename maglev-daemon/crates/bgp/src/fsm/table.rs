//! The step for each event in each state of a connection: the table of RFC 4271, section 8.2.2, for the events of a
//! connection. It must not know how steps are carried out.

use crate::wire::Fault;

/// The phase of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// There is none.
    #[default]
    Absent,
    /// It is being dialled.
    Dialing,
    /// Our OPEN is sent, theirs is awaited.
    OpenSent,
    /// Theirs is accepted, their KEEPALIVE is awaited.
    OpenConfirm,
    /// Prefixes are exchanged.
    Established,
}

/// Something that happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// TCP is there.
    Connected,
    /// TCP failed or was closed.
    Closed,
    Open,
    Update,
    Keepalive,
    RouteRefresh,
    /// They end it with a NOTIFICATION.
    Notification,
    /// They sent an invalid message.
    Malformed,
    /// They were silent for too long.
    HoldExpired,
    /// They read nothing for too long.
    SendHoldExpired,
    /// We end it.
    Stop,
}

/// The step to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Send OPEN.
    Greet,
    /// Examine their OPEN and send KEEPALIVE.
    Confirm,
    /// Begin to exchange prefixes.
    Establish,
    /// They are alive.
    Alive,
    /// Send all of a family again.
    Resend,
    /// End without a message: TCP is gone, or they sent the last message.
    Drop,
    /// End with the NOTIFICATION at hand.
    Notify,
    /// End with this NOTIFICATION.
    NotifyFault(Fault),
}

impl Phase {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] =
        [Self::Absent, Self::Dialing, Self::OpenSent, Self::OpenConfirm, Self::Established];

    /// The step for this event in this phase.
    pub(super) const fn step(self, event: Event) -> Step {
        use {Event as E, Phase as P};
        match (self, event) {
            // An event that was under way when the connection ended.
            (
                P::Absent,
                E::Connected
                | E::Closed
                | E::Open
                | E::Update
                | E::Keepalive
                | E::RouteRefresh
                | E::Notification
                | E::Malformed
                | E::HoldExpired
                | E::SendHoldExpired
                | E::Stop,
            ) => Step::Nothing,

            (P::Dialing, E::Connected) => Step::Greet,
            (P::Dialing, E::Closed | E::HoldExpired | E::Stop) => Step::Drop,
            // No message can be sent before there is a connection.
            (
                P::Dialing,
                E::Open
                | E::Update
                | E::Keepalive
                | E::RouteRefresh
                | E::Notification
                | E::Malformed
                | E::SendHoldExpired,
            ) => Step::Nothing,

            (P::OpenSent, E::Open) => Step::Confirm,
            (P::OpenSent, E::Update | E::Keepalive | E::RouteRefresh) => {
                Step::NotifyFault(Fault::UNEXPECTED_IN_OPEN_SENT)
            }

            (P::OpenConfirm, E::Keepalive) => Step::Establish,
            (P::OpenConfirm, E::Open | E::Update | E::RouteRefresh) => {
                Step::NotifyFault(Fault::UNEXPECTED_IN_OPEN_CONFIRM)
            }

            (P::Established, E::Update | E::Keepalive) => Step::Alive,
            (P::Established, E::RouteRefresh) => Step::Resend,
            (P::Established, E::Open) => Step::NotifyFault(Fault::UNEXPECTED_IN_ESTABLISHED),

            (P::OpenSent | P::OpenConfirm | P::Established, E::Connected) => Step::Nothing,
            (P::OpenSent | P::OpenConfirm | P::Established, E::Closed | E::Notification) => Step::Drop,
            (P::OpenSent | P::OpenConfirm | P::Established, E::Malformed | E::Stop) => Step::Notify,
            (P::OpenSent | P::OpenConfirm | P::Established, E::HoldExpired) => {
                Step::NotifyFault(Fault::HOLD_TIMER_EXPIRED)
            }
            (P::OpenSent | P::OpenConfirm | P::Established, E::SendHoldExpired) => {
                Step::NotifyFault(Fault::SEND_HOLD_TIMER_EXPIRED)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 11] = [
        Event::Connected,
        Event::Closed,
        Event::Open,
        Event::Update,
        Event::Keepalive,
        Event::RouteRefresh,
        Event::Notification,
        Event::Malformed,
        Event::HoldExpired,
        Event::SendHoldExpired,
        Event::Stop,
    ];

    /// One line a phase, one column an event, in their orders.
    const EXPECTED: [(Phase, &str); 5] = [
        (Phase::Absent, "- - - - - - - - - - -"),
        (Phase::Dialing, "greet drop - - - - - - drop - drop"),
        (Phase::OpenSent, "- drop confirm 5/1 5/1 5/1 drop notify 4/0 8/0 notify"),
        (Phase::OpenConfirm, "- drop 5/2 5/2 establish 5/2 drop notify 4/0 8/0 notify"),
        (Phase::Established, "- drop 5/3 alive alive resend drop notify 4/0 8/0 notify"),
    ];

    fn word(step: Step) -> String {
        match step {
            Step::Nothing => "-".into(),
            Step::NotifyFault(Fault(code, subcode)) => format!("{code}/{subcode}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    #[test]
    fn every_event_in_every_phase() {
        assert_eq!(EXPECTED.map(|(phase, _)| phase), Phase::ALL);
        for (phase, expected) in EXPECTED {
            let steps = EVENTS.map(|event| word(phase.step(event))).join(" ");
            assert_eq!(steps, expected, "{phase:?}");
        }
    }
}
