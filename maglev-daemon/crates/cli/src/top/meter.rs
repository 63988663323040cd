//! Counters into rates: the difference of two readings over the measured time between them. It must not know what is counted.

use std::collections::VecDeque;

/// How many rates a trend keeps.
const KEPT: usize = 120;

/// Packets and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) packets: f64,
    pub(super) bytes: f64,
}

/// The last rates of packets, the present one last.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend(VecDeque<f32>);

impl Trend {
    pub(super) fn push(&mut self, rate: f64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(rate as f32);
    }

    pub(super) fn values(&self) -> Vec<f32> {
        self.0.iter().copied().collect()
    }
}

/// One counted thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// Packets and bytes of the last reading.
    last: Option<[u64; 2]>,
    /// `None` until there are two readings of one count.
    pub(super) rates: Option<Rates>,
    pub(super) trend: Trend,
}

impl Meter {
    /// Takes a reading, so many seconds after the last one; `None` if this count has nothing to do with the last one. A count
    /// that is smaller than before began anew.
    pub(super) fn read(&mut self, count: [u64; 2], seconds: Option<f64>) {
        self.rates = self.rates_since_last(count, seconds);
        if let Some(rates) = self.rates {
            self.trend.push(rates.packets);
        }
        self.last = Some(count);
    }

    fn rates_since_last(&self, count: [u64; 2], seconds: Option<f64>) -> Option<Rates> {
        let ([packets, bytes], seconds) = (self.last?, seconds?);
        let rate = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
        Some(Rates { packets: rate(count[0], packets)?, bytes: rate(count[1], bytes)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_difference_over_the_measured_time() {
        let mut meter = Meter::default();
        meter.read([1_000, 64_000], None);
        assert_eq!(meter.rates, None);
        meter.read([1_300, 94_000], Some(1.5));
        assert_eq!(meter.rates, Some(Rates { packets: 200.0, bytes: 20_000.0 }));
        assert_eq!(meter.trend.values(), [200.0]);
    }

    #[test]
    fn a_count_that_began_anew_has_no_rate() {
        let mut meter = Meter::default();
        for (count, seconds, packets) in [
            ([1_000, 1_000], None, None),
            // Smaller: the VIP was removed and added again.
            ([10, 10], Some(1.0), None),
            ([30, 30], Some(1.0), Some(20.0)),
            // Larger, and still of another daemon.
            ([90, 90], None, None),
            ([91, 91], Some(1.0), Some(1.0)),
        ] {
            meter.read(count, seconds);
            assert_eq!(meter.rates.map(|rates| rates.packets), packets);
        }
        assert_eq!(meter.trend.values(), [20.0, 1.0]);
    }

    #[test]
    fn a_trend_is_bounded() {
        let mut trend = Trend::default();
        (0..1_000).for_each(|n| trend.push(f64::from(n)));
        assert_eq!((trend.values().len(), trend.values().last()), (KEPT, Some(&999.0)));
    }
}
