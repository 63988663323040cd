//! `maglev events`: what happened lately, and what happens. It must not know what an event says.

use std::ops::ControlFlow;

use maglev_api::client::Told;
use maglev_api::view::{Event, Events};

use super::interrupt::Interrupt;
use super::output::{Format, Printer, print_on};
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what happens, until interrupted; ends with code 3 if the daemon goes away
    #[arg(long)]
    follow: bool,
    /// Only what came after this event, by its sequence; says how many of these are not kept any more
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
}

pub(super) fn run(args: &Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let Args { follow, after } = args;
    let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
    let format = printer.format();
    if *follow {
        let mut failure = None;
        let interrupt = Interrupt::says("nothing was changed; `maglev events --follow` goes on")?;
        client.follow(&format!("/v1/events{query}"), |told| {
            if let Told::Event(event) = &told {
                let last = event.sequence;
                interrupt.now_says(format!("nothing was changed; `maglev events --follow --after {last}` goes on"));
            }
            print_on(&line(format, &told)).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
        return failure.map_or(Ok(()), Err);
    }
    let Events { missed, events } = client.get(&format!("/v1/events/recent{query}"))?;
    let missed = (missed > 0).then_some(Told::Missed(missed));
    for told in missed.into_iter().chain(events.into_iter().map(|event| Told::Event(Box::new(event)))) {
        if print_on(&line(format, &told))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// One line: a sentence with its time, or an object.
fn line(format: Format, told: &Told) -> String {
    match (format, told) {
        (Format::Text, Told::Event(event)) => {
            let Event { sequence: _, unix_milliseconds, level, text, what: _ } = &**event;
            format!("{}  {:<7}  {text}\n", utc(*unix_milliseconds), level.as_str())
        }
        (Format::Text, Told::Missed(missed)) => format!("({missed} events are not kept any more: missed)\n"),
        // Its keys are text, so that it can be written.
        (Format::Json, Told::Event(event)) => serde_json::to_string(event).unwrap_or_default() + "\n",
        (Format::Json, Told::Missed(missed)) => format!("{{\"event\":\"missed\",\"missed\":{missed}}}\n"),
    }
}

/// A time as RFC 3339 writes it: `2026-11-24T20:43:26.123Z`.
fn utc(unix_milliseconds: u64) -> String {
    let (seconds, milliseconds) = (unix_milliseconds / 1_000, unix_milliseconds % 1_000);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    // Beyond what four digits hold no year matters.
    while days >= 365 + u64::from(is_leap(year)) && year < 9_999 {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while let Some(length) = lengths.get(month).filter(|length| days >= **length) {
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view::What;

    #[test]
    fn times_are_written_with_their_calendar() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(milliseconds), text);
        }
    }

    #[test]
    fn an_event_is_a_line_of_either_form() {
        let what = What::PoolPanic { pool: "web".into(), on: true, healthy: 1, of: 4 };
        let (level, text) = (what.level(), what.to_string());
        let event =
            Told::Event(Box::new(Event { sequence: 9, unix_milliseconds: 1_709_164_799_999, level, text, what }));
        let sentence = "PANIC: 1 of 4 backends of pool web are healthy: all that are active are used";
        assert_eq!(line(Format::Text, &event), format!("2024-02-28T23:59:59.999Z  error    {sentence}\n"));
        let json: serde_json::Value = serde_json::from_str(&line(Format::Json, &event)).unwrap();
        assert_eq!((&json["sequence"], &json["event"], &json["on"]), (&9.into(), &"pool_panic".into(), &true.into()));
        assert_eq!(line(Format::Text, &Told::Missed(3)), "(3 events are not kept any more: missed)\n");
        assert_eq!(line(Format::Json, &Told::Missed(3)), "{\"event\":\"missed\",\"missed\":3}\n");
    }
}
