//! `maglev events`: recent events, and with `--follow` new ones. It must not know the kinds of events.

use std::ops::ControlFlow;

use maglev_api::client::Received;
use maglev_api::view::{Event, Events};
use maglev_model::utc_with_milliseconds;

use super::interrupt::Interrupt;
use super::output::{Format, Printer, print_on};
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Continue with new events until interrupted; ends with code 3 if the daemon ends
    #[arg(long)]
    follow: bool,
    /// Only events after this sequence number; prints how many of them are lost
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
}

pub(super) fn run(args: &Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let Args { follow, after } = args;
    let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
    let format = printer.format();
    if *follow {
        let mut failure = None;
        let interrupt = Interrupt::says("nothing was changed; continue with `maglev events --follow`")?;
        client.follow(&format!("/v1/events{query}"), |received| {
            if let Received::Event(event) = &received {
                let last = event.sequence;
                interrupt
                    .now_says(format!("nothing was changed; continue with `maglev events --follow --after {last}`"));
            }
            print_on(&line(format, &received)).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
        return failure.map_or(Ok(()), Err);
    }
    let Events { missed, events } = client.get(&format!("/v1/events/recent{query}"))?;
    let missed = (missed > 0).then_some(Received::Missed(missed));
    for received in missed.into_iter().chain(events.into_iter().map(|event| Received::Event(Box::new(event)))) {
        if print_on(&line(format, &received))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// One line: a sentence with its time, or an object.
pub(super) fn line(format: Format, received: &Received) -> String {
    match (format, received) {
        (Format::Text, Received::Event(event)) => {
            let Event { sequence: _, unix_milliseconds, level, text, what: _ } = &**event;
            format!("{}  {:<7}  {text}\n", utc_with_milliseconds(*unix_milliseconds), level.as_str())
        }
        (Format::Text, Received::Missed(missed)) => format!("({missed} events lost)\n"),
        // Serializing cannot fail: all keys are text.
        (Format::Json, Received::Event(event)) => serde_json::to_string(event).unwrap_or_default() + "\n",
        (Format::Json, Received::Missed(missed)) => format!("{{\"event\":\"missed\",\"missed\":{missed}}}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view::What;

    #[test]
    fn an_event_is_a_line_of_either_form() {
        let what = What::PoolPanic { pool: "web".into(), on: true, healthy: 1, of: 4 };
        let (level, text) = (what.level(), what.to_string());
        let event =
            Received::Event(Box::new(Event { sequence: 9, unix_milliseconds: 1_709_164_799_999, level, text, what }));
        let sentence = "PANIC: 1 of 4 backends of pool web are healthy: fail-open, all active backends are used";
        assert_eq!(line(Format::Text, &event), format!("2024-02-28T23:59:59.999Z  error    {sentence}\n"));
        let json: serde_json::Value = serde_json::from_str(&line(Format::Json, &event)).unwrap();
        assert_eq!((&json["sequence"], &json["event"], &json["on"]), (&9.into(), &"pool_panic".into(), &true.into()));
        assert_eq!(line(Format::Text, &Received::Missed(3)), "(3 events lost)\n");
        assert_eq!(line(Format::Json, &Received::Missed(3)), "{\"event\":\"missed\",\"missed\":3}\n");
    }
}
