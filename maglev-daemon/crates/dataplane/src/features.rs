//! The features of the kernel that the eBPF objects need, each probed by itself: distributions add features to old kernels and
//! leave them out of new ones, so a version says little. It must not know the objects.

use aya::maps::{Array, MapData, MapType};
use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use maglev_common::maps::MMAPABLE;
use nix::errno::Errno;

use super::error::{DataplaneError, os_error};

/// Helpers that came after the types of program they are called from, by the kernel's names.
const HELPERS: [(ProgramType, BpfHelper, &str); 5] = [
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_adjust_head, "bpf_xdp_adjust_head"),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_adjust_tail, "bpf_xdp_adjust_tail"),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_redirect_map, "bpf_redirect_map"),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_jiffies64, "bpf_jiffies64"),
    (ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_skb_adjust_room, "bpf_skb_adjust_room"),
];

/// Why an object could not be loaded: the feature that the kernel lacks, where that is the reason.
pub(super) fn blame(error: DataplaneError) -> DataplaneError {
    match error {
        refused @ (DataplaneError::Verifier { .. } | DataplaneError::Load(_)) => {
            missing().map_or(refused, |feature| DataplaneError::kernel(&format!("it has no {feature}")))
        }
        other => other,
    }
}

/// The first of the needed features that the running kernel is certain not to have.
pub(super) fn missing() -> Option<String> {
    let programs = [(ProgramType::Xdp, "XDP"), (ProgramType::SchedClassifier, "sched_cls")];
    let programs = programs.into_iter().filter(|(kind, _)| matches!(is_program_supported(*kind), Ok(false)));
    let maps = [(MapType::Array, "array"), (MapType::DevMap, "devmap")];
    let maps = maps.into_iter().filter(|(kind, _)| matches!(is_map_supported(*kind), Ok(false)));
    let unmapped =
        Array::<MapData, u64>::create(1, MMAPABLE).is_err_and(|error| os_error(&error) == Some(Errno::EINVAL));
    let helpers = HELPERS.into_iter().filter(|(kind, helper, _)| lacks(*kind, *helper));
    let mut missing = programs
        .map(|(_, name)| format!("eBPF programs of type {name}"))
        .chain(maps.map(|(_, name)| format!("eBPF maps of type {name}")))
        .chain(unmapped.then(|| "eBPF arrays that can be mapped into memory".to_owned()))
        .chain(helpers.map(|(_, _, name)| format!("eBPF helper {name}")));
    missing.next()
}

fn lacks(program: ProgramType, helper: BpfHelper) -> bool {
    matches!(is_helper_supported(program, helper), Ok(false))
}

/// Whether links can hold programs at an interface's egress (tcx). A kernel without them rejects the query for its programs.
pub(super) fn has_egress_links() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Egress)
        .map_or_else(|error| os_error(&error) != Some(Errno::EINVAL), |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_runs_the_tests_lacks_nothing() {
        assert_eq!(missing(), None);
    }

    #[test]
    fn an_error_that_no_feature_explains_stays_as_it_is() {
        let error = blame(DataplaneError::Load("no memory".to_owned()));
        assert_eq!(error.to_string(), "cannot load the eBPF object: no memory");
    }

    #[test]
    fn a_helper_of_another_type_of_program_is_missing() {
        assert!(lacks(ProgramType::Xdp, BpfHelper::BPF_FUNC_skb_adjust_room));
        assert!(!lacks(ProgramType::Xdp, BpfHelper::BPF_FUNC_jiffies64));
    }
}
