//! What each event means in each state of a connection: the table of RFC 4271, section 8.2.2, in as much of it as a
//! connection has. It must not know what carries it out.

use crate::wire::Fault;

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// There is none.
    #[default]
    Absent,
    /// It is being dialled.
    Dialing,
    /// Our OPEN is out, theirs is awaited.
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
    /// They end it, and say why.
    Notification,
    /// What they sent is no message.
    Malformed,
    /// They were silent for too long.
    HoldExpired,
    /// They took nothing for too long.
    SendHoldExpired,
    /// We end it.
    Stop,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Send OPEN.
    Greet,
    /// Examine their OPEN and send KEEPALIVE.
    Confirm,
    /// Begin to exchange prefixes.
    Establish,
    /// They live.
    Alive,
    /// Send all of a family again.
    Resend,
    /// End without a word: TCP is gone, or they said the last one.
    Drop,
    /// End with the NOTIFICATION at hand.
    Tell,
    /// End with this NOTIFICATION.
    TellFault(Fault),
}

impl Phase {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] =
        [Self::Absent, Self::Dialing, Self::OpenSent, Self::OpenConfirm, Self::Established];

    /// What this event means now.
    pub(super) const fn step(self, event: Event) -> Step {
        use {Event as E, Phase as P};
        match (self, event) {
            // What was on its way when the connection ended.
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
            // Nothing can be said before there is a connection.
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
                Step::TellFault(Fault::UNEXPECTED_IN_OPEN_SENT)
            }

            (P::OpenConfirm, E::Keepalive) => Step::Establish,
            (P::OpenConfirm, E::Open | E::Update | E::RouteRefresh) => {
                Step::TellFault(Fault::UNEXPECTED_IN_OPEN_CONFIRM)
            }

            (P::Established, E::Update | E::Keepalive) => Step::Alive,
            (P::Established, E::RouteRefresh) => Step::Resend,
            (P::Established, E::Open) => Step::TellFault(Fault::UNEXPECTED_IN_ESTABLISHED),

            (P::OpenSent | P::OpenConfirm | P::Established, E::Connected) => Step::Nothing,
            (P::OpenSent | P::OpenConfirm | P::Established, E::Closed | E::Notification) => Step::Drop,
            (P::OpenSent | P::OpenConfirm | P::Established, E::Malformed | E::Stop) => Step::Tell,
            (P::OpenSent | P::OpenConfirm | P::Established, E::HoldExpired) => {
                Step::TellFault(Fault::HOLD_TIMER_EXPIRED)
            }
            (P::OpenSent | P::OpenConfirm | P::Established, E::SendHoldExpired) => {
                Step::TellFault(Fault::SEND_HOLD_TIMER_EXPIRED)
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
        (Phase::OpenSent, "- drop confirm 5/1 5/1 5/1 drop tell 4/0 8/0 tell"),
        (Phase::OpenConfirm, "- drop 5/2 5/2 establish 5/2 drop tell 4/0 8/0 tell"),
        (Phase::Established, "- drop 5/3 alive alive resend drop tell 4/0 8/0 tell"),
    ];

    fn word(step: Step) -> String {
        match step {
            Step::Nothing => "-".into(),
            Step::TellFault(Fault(code, subcode)) => format!("{code}/{subcode}"),
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
