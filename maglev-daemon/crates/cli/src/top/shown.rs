//! Rates, trends and texts in a bounded number of columns of a terminal. It must not know what is shown.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The eight heights of a bar.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A rate in at most five columns: `0`, `0.4`, `37`, `12.3k`, `1.2M`; `-` if it is not known.
pub(super) fn rate(rate: Option<f64>) -> String {
    const UNITS: [&str; 5] = ["k", "M", "G", "T", "P"];
    let Some(mut scaled) = rate else { return "-".to_owned() };
    if scaled == 0.0 {
        return "0".to_owned();
    }
    if scaled < 9.95 {
        // A packet an hour is no rate of zero.
        return format!("{:.1}", scaled.max(0.1));
    }
    let mut unit = "";
    for next in UNITS {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1_000.0;
        unit = next;
    }
    if unit.is_empty() || scaled >= 99.95 { format!("{scaled:.0}{unit}") } else { format!("{scaled:.1}{unit}") }
}

/// The last values as bars, the present one last, as high as the largest of those that are shown.
pub(super) fn trend(values: &[f32], columns: usize) -> String {
    let shown = &values[values.len().saturating_sub(columns)..];
    let most = shown.iter().copied().fold(0.0_f32, f32::max);
    let bar = |value: &f32| match value / most {
        part if part > 0.0 => BARS[((part * 8.0).ceil() as usize).clamp(1, 8) - 1],
        // None at all, also where nothing is above zero.
        _ => ' ',
    };
    let bars: String = shown.iter().map(bar).collect();
    format!("{}{bars}", " ".repeat(columns - shown.len()))
}

/// A text in at most so many columns, without characters that are not shown: a longer one ends in `…`.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    if plain.width() <= columns {
        return plain;
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let (mut fitting, mut used) = (String::new(), 0);
    for c in plain.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        fitting.push(c);
    }
    fitting + "…"
}

/// The same in exactly so many columns, on the left or on the right.
pub(super) fn pad(text: &str, columns: usize, right: bool) -> String {
    let text = fit(text, columns);
    let blanks = " ".repeat(columns - text.width());
    if right { blanks + &text } else { text + &blanks }
}

/// The lines of a text of at most so many columns, broken between words where that is possible. Lines after the first begin
/// with so many blanks.
pub(super) fn wrap(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let indent = if indent < columns / 2 { indent } else { 0 };
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let mut word: String = word.chars().filter(|c| !c.is_control()).collect();
        if !line.is_empty() && line.width() + 1 + word.width() > columns {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if !line.is_empty() {
            line.push(' ');
        }
        while line.width() + word.width() > columns {
            let (head, tail) = split(&word, columns.saturating_sub(line.width()).max(2));
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)) + &head);
            word = tail;
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines
}

/// A word's first columns, and the rest.
fn split(word: &str, columns: usize) -> (String, String) {
    let mut used = 0;
    let end = word.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    let (head, tail) = word.split_at(end.map_or(word.len(), |(at, _)| at));
    (head.to_owned(), tail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_takes_at_most_five_columns() {
        for (value, text) in [
            (0.0, "0"),
            (0.000_1, "0.1"),
            (0.44, "0.4"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (999_400.0, "999k"),
            (1_234_567.0, "1.2M"),
            (4e12, "4.0T"),
        ] {
            assert_eq!(rate(Some(value)), text, "{value}");
        }
        assert_eq!(rate(None), "-");
        let widest = (0..180).map(|n| rate(Some(1.1_f64.powi(n))).width()).max();
        assert_eq!(widest, Some(5));
    }

    #[test]
    fn a_trend_ends_with_the_present_value_and_is_as_high_as_the_largest() {
        assert_eq!(trend(&[0.0, 1.0, 4.0, 8.0], 6), "   ▁▄█");
        assert_eq!(trend(&[8.0, 1.0, 2.0], 2), "▄█");
        assert_eq!(trend(&[0.0, 0.0], 3), "   ");
        assert_eq!(trend(&[], 2), "  ");
        assert_eq!(trend(&[1.0], 0), "");
    }

    #[test]
    fn a_text_never_takes_more_columns_than_it_is_given() {
        let wide = "宽".repeat(63);
        assert_eq!(fit(&wide, 6), "宽宽…");
        assert_eq!(pad(&wide, 6, false), "宽宽… ");
        assert_eq!(pad("7", 3, true), "  7");
        assert_eq!(fit("a\x1b[31m\nb", 9), "a[31mb");
        for columns in 0..140 {
            assert_eq!(pad(&wide, columns, false).width(), columns);
            assert!(wrap(&wide, columns.max(2), 8).iter().all(|line| line.width() <= columns.max(2)));
        }
    }

    #[test]
    fn a_text_is_broken_between_words() {
        assert_eq!(wrap("action  repair the route", 12, 2), ["action ", "  repair the", "  route"]);
        assert_eq!(wrap("short", 12, 2), ["short"]);
        assert_eq!(wrap("abcdefgh", 4, 1), ["abcd", " efg", " h"]);
    }
}
