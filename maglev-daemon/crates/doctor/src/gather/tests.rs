//! Facts read from a host that a folder stands for, and files that are missing or hold something else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use maglev_testing::TempDir;

use super::machine::{answered, list};
use super::*;

fn host(files: &[(&str, &str)]) -> (TempDir, Gather) {
    let root = TempDir::new();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let gather = Gather::new(root.path());
    (root, gather)
}

#[test]
fn the_larger_setting_of_all_and_of_the_interface_counts() {
    let (_root, gather) = host(&[
        ("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
        ("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n"),
        ("proc/sys/net/ipv4/conf/eth1/rp_filter", "x\n"),
    ]);
    assert_eq!(gather.of_interface("eth0", "rp_filter"), Ok(1));
    let file = "/proc/sys/net/ipv4/conf/eth1/rp_filter";
    assert_eq!(gather.of_interface("eth1", "rp_filter"), Err(format!("{file} holds no number: \"x\"")));
    assert!(gather.of_interface("eth2", "rp_filter").unwrap_err().starts_with("cannot read /proc/sys/net"));
}

#[test]
fn the_tightest_control_group_counts() {
    let (_root, gather) = host(&[
        ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    2048 kB\n"),
        ("proc/self/cgroup", "0::/system.slice/maglevd.service\n"),
        ("sys/fs/cgroup/system.slice/maglevd.service/memory.max", "max\n"),
        ("sys/fs/cgroup/system.slice/maglevd.service/memory.current", "10\n"),
        ("sys/fs/cgroup/system.slice/memory.max", "1000\n"),
        ("sys/fs/cgroup/system.slice/memory.current", "900\n"),
    ]);
    let memory = gather.memory();
    assert_eq!((memory.available, memory.group_left), (Ok(2_048 * 1_024), Ok(Some(100))));
    let (_root, gather) = host(&[("proc/meminfo", "MemTotal: 9 kB\n")]);
    let memory = gather.memory();
    assert_eq!(memory.available, Err("/proc/meminfo has no MemAvailable".to_owned()));
    assert_eq!(memory.group_left, Ok(None));
}

#[test]
fn the_cpus_of_a_cards_interrupts_are_read() {
    let (_root, gather) = host(&[
        ("sys/bus/pci/devices/0000:00:03.0/msi_irqs/24", "msix\n"),
        ("sys/bus/pci/devices/0000:00:03.0/msi_irqs/25", "msix\n"),
        ("sys/bus/pci/devices/0000:00:03.0/msi_irqs/26", "msix\n"),
        ("proc/irq/24/effective_affinity_list", "3\n"),
        ("proc/irq/25/effective_affinity_list", "\n"),
        ("proc/irq/25/smp_affinity_list", "0-1,5\n"),
        ("sys/devices/system/cpu/online", "0-3\n"),
    ]);
    let mut found = gather.interrupts("0000:00:03.0").unwrap();
    found.sort();
    assert_eq!(found, [vec![0, 1, 5], vec![3]]);
    assert!(gather.interrupts("0000:00:04.0").is_err());
    assert_eq!(gather.cpus(), Ok(4));
}

#[test]
fn lists_and_answers_that_are_none_are_refused() {
    assert_eq!(list("0,2-3\n"), Some(vec![0, 2, 3]));
    for text in ["", "x", "0-", "0-4000000000", "-1"] {
        assert_eq!(list(text), None, "{text}");
    }
    assert_eq!((answered("yes\n", ""), answered("no\n", "")), (Ok(true), Ok(false)));
    let reason = "System has not been booted with systemd";
    assert_eq!(answered("", &format!("{reason}\nmore\n")), Err(reason.to_owned()));
    assert_eq!(answered("", ""), Err("timedatectl gave no answer".to_owned()));
}

#[test]
fn a_setting_that_a_namespace_does_not_show_is_not_an_error() {
    let (_root, gather) = host(&[("proc/sys/net/core/bpf_jit_enable", "1\n")]);
    assert_eq!(gather.jit(), Ok(Some(1)));
    let (_root, gather) = host(&[("proc/sys/net/core/somaxconn", "128\n")]);
    assert_eq!(gather.jit(), Ok(None));
    let (_root, gather) = host(&[]);
    assert!(gather.jit().unwrap_err().starts_with("cannot read /proc/sys/net/core/bpf_jit_enable"));
}

#[test]
fn modes_and_file_systems_are_read() {
    let root = TempDir::new();
    let path = root.path().join("maglev.yaml");
    assert_eq!(file(&path, Role::Secret).found, Ok(None));
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(file(&path, Role::Secret).found.unwrap().unwrap().bits, 0o640);
    assert!(file(&path.join("below"), Role::Secret).found.is_err());
    assert_eq!(pin(&root.path().join("no/such/folder")).is_bpf, Ok(false));
    assert_eq!(pin(Path::new("/proc/nothing")).is_bpf, Ok(false));
}
