//! The machine's properties: its CPUs, its clock, its pages. It must not know programs.

use std::fs;

use nix::libc;
use nix::time::{ClockId, clock_getres};

use super::error::DataplaneError;

/// One more than the highest number a CPU of this machine can have.
pub(super) fn possible_cpus() -> Result<u32, DataplaneError> {
    const FILE: &str = "/sys/devices/system/cpu/possible";
    let text =
        fs::read_to_string(FILE).map_err(|error| DataplaneError::Load(format!("cannot read {FILE}: {error}")))?;
    highest_cpu(&text)
        .and_then(|highest| highest.checked_add(1))
        .ok_or_else(|| DataplaneError::Load(format!("{FILE} is not a list of CPUs: {:?}", text.trim())))
}

/// The highest number in a list of ranges such as `0-3,8-11`.
fn highest_cpu(list: &str) -> Option<u32> {
    list.trim().split([',', '-']).map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()?.into_iter().max()
}

/// Seconds per jiffy as a fraction of 2^32. The coarse clock ticks once a jiffy, so its resolution is one.
pub(super) fn seconds_per_jiffy() -> Result<u64, DataplaneError> {
    let jiffy = jiffy_nanoseconds()?;
    Ok((1_u64 << 32) * jiffy / 1_000_000_000)
}

/// Nanoseconds in a jiffy: 1,000,000 to 10,000,000.
pub(super) fn jiffy_nanoseconds() -> Result<u64, DataplaneError> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(|errno| DataplaneError::Load(format!("cannot read the clock's resolution: {errno}")))?;
    u64::try_from(resolution.tv_nsec())
        .ok()
        .filter(|&nanoseconds| resolution.tv_sec() == 0 && nanoseconds > 0)
        .ok_or_else(|| DataplaneError::Load(format!("a jiffy of {resolution} is not plausible")))
}

/// Bytes in a page of memory.
pub(super) fn page() -> Option<u32> {
    // SAFETY: the call takes a number and has no effect.
    u32::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_cpus_are_read_with_gaps() {
        assert_eq!(highest_cpu("0\n"), Some(0));
        assert_eq!(highest_cpu("0-127\n"), Some(127));
        assert_eq!(highest_cpu("0,2-3,64-71\n"), Some(71));
        assert_eq!(highest_cpu(""), None);
        assert_eq!(highest_cpu("0-x"), None);
    }

    #[test]
    fn a_second_is_as_many_jiffies_as_the_kernel_ticks() {
        let per_second = 1_000_000_000 / jiffy_nanoseconds().unwrap();
        let error = (1_u64 << 32) - per_second * seconds_per_jiffy().unwrap();
        // Below one second in an hour.
        assert!(error < (1 << 32) / 3_600, "{error}");
    }

    #[test]
    fn a_page_is_a_power_of_two() {
        assert!(page().is_some_and(|page| page.is_power_of_two() && page >= 4_096));
    }
}
