//! Writes the OpenMetrics text format (1.0.0) line by line: series are not stored in another form. It must not know the
//! metrics.

use std::fmt::{Display, Write as _};

/// Label names and values of one series.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// The incomplete text.
#[derive(Debug, Default)]
pub(super) struct Registry {
    text: String,
    /// Every family, those without series included.
    #[cfg(test)]
    pub(super) families: Vec<Family>,
}

/// A family as the manual describes it.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// The name of its series.
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) help: String,
    /// The labels of each of its series.
    pub(super) series: Vec<Vec<(&'static str, String)>>,
}

impl Registry {
    /// An empty text with room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut registry = Self::default();
        registry.text.reserve(bytes);
        registry
    }

    /// The whole text.
    pub(super) fn end(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    /// Writes a family: nothing if it has no series.
    fn family<const N: usize, V: Display>(
        &mut self,
        (name, help, kind, suffix): (&str, &str, &str, &str),
        series: impl Iterator<Item = (Labels<N>, V)>,
    ) {
        #[cfg(test)]
        let series = {
            let series: Vec<_> = series.collect();
            let (name, kind, help) = (format!("maglev_{name}{suffix}"), kind.to_owned(), help.to_owned());
            let labels = series.iter().map(|(labels, _)| labels.to_vec()).collect();
            self.families.push(Family { name, kind, help, series: labels });
            series.into_iter()
        };
        let mut series = series.peekable();
        if series.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP maglev_{name} {help}.\n# TYPE maglev_{name} {kind}");
        for (labels, value) in series {
            let _ = write!(self.text, "maglev_{name}{suffix}");
            for (at, (label, value)) in labels.iter().enumerate() {
                self.text.push(if at == 0 { '{' } else { ',' });
                self.text.push_str(label);
                self.text.push_str("=\"");
                self.escaped(value);
                self.text.push('"');
            }
            self.text.push_str(if N == 0 { " " } else { "} " });
            let _ = writeln!(self.text, "{value}");
        }
    }

    fn escaped(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }
}

/// Registers a counter with its series; the format appends `_total` to its name.
pub(super) fn count<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels<N>, u64)>,
) {
    registry.family((name, help, "counter", "_total"), series);
}

/// Registers a gauge with its series.
pub(super) fn measure<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels<N>, u64)>,
) {
    registry.family((name, help, "gauge", ""), series);
}

/// Registers a gauge in seconds with its series.
pub(super) fn measure_seconds<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Labels<N>, f64)>,
) {
    registry.family((name, help, "gauge", ""), series);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_says() {
        let mut registry = Registry::with_capacity(64);
        count(&mut registry, "packets", "Packets", [([("reason", "a\"\\\n".to_owned())], 7)].into_iter());
        measure(&mut registry, "up", "Up", [([], 1)].into_iter());
        measure(&mut registry, "absent", "Nothing", std::iter::empty::<(Labels<1>, u64)>());
        let labels = [("pool", "web".to_owned()), ("backend", "web1".to_owned())];
        measure_seconds(&mut registry, "latency_seconds", "Latency", [(labels, 0.0015)].into_iter());
        let expected = "# HELP maglev_packets Packets.\n# TYPE maglev_packets counter\n\
                        maglev_packets_total{reason=\"a\\\"\\\\\\n\"} 7\n\
                        # HELP maglev_up Up.\n# TYPE maglev_up gauge\nmaglev_up 1\n\
                        # HELP maglev_latency_seconds Latency.\n# TYPE maglev_latency_seconds gauge\n\
                        maglev_latency_seconds{pool=\"web\",backend=\"web1\"} 0.0015\n# EOF\n";
        assert_eq!(registry.end(), expected);
    }
}
