//! Forwarding outlives its daemon, and another one adopts it. A daemon that is killed drops all it holds, as the
//! kernel does for it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::*;

/// A pin folder of one test's own.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("/sys/fs/bpf/maglev-test-{}-{number}", std::process::id())))
    }

    pub(super) fn hold(&self) -> Arc<Pins> {
        Arc::new(Pins::hold(&self.0).unwrap())
    }

    /// What is in it.
    pub(super) fn entries(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).into_iter().flatten().map(Result::unwrap) {
            let folder = entry.file_name().into_string().unwrap();
            let inner =
                fs::read_dir(entry.path()).unwrap().map(|inner| inner.unwrap().file_name().into_string().unwrap());
            found.extend(inner.map(|inner| format!("{folder}/{inner}")));
        }
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Keeps this thread on one CPU: each has a flow table of its own.
pub(super) fn stay() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}

/// A daemon forwards, and is killed. Returns the set that it left.
pub(super) fn killed(folder: &Folder, settings: &Settings) -> String {
    let mut plane = Dataplane::replace(settings, &links(), &folder.hold()).unwrap();
    plane.publish(&first_plan()).unwrap();
    plane.outlive().unwrap();
    let index = plane.interfaces()[0].index;
    assert_eq!(Harness::from_dataplane(&mut plane).run(index, &datagram(9)).0, action::TX);
    plane.set().unwrap().1.to_owned()
}

#[test]
fn a_killed_daemons_set_keeps_forwarding_and_is_adopted_with_its_flows() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        stay();
        let settings = settings(&[("eth1", Mode::Native), ("eth2", Mode::Generic)]);
        let set = killed(&folder, &settings);
        let before = [attached("eth1").unwrap(), attached("eth2").unwrap()];

        let mut plane = Dataplane::adopt(&settings, &links(), &folder.hold(), &set).unwrap();
        assert_eq!([attached("eth1").unwrap(), attached("eth2").unwrap()], before);
        assert!(plane.is_adopted());
        let known = plane.explain(flow(9)).unwrap();
        assert_eq!((known.owner, known.remembered.len()), (member(1), 1));
        let live = plane.live();
        assert_eq!(live.members.into_iter().collect::<Vec<_>>(), [(member(1), record(0))]);
        assert_eq!(live.pools.len(), 4);
        assert_eq!(live.pools[usize::from(POOL.0)], always(1));

        // It is written to and counted like one of its own.
        let index = plane.interfaces()[0].index;
        plane
            .publish(&[
                Step::WriteMember { id: member(2), record: record(0) },
                Step::FillTable { table: TableIndex(2), slots: table(member(2)) },
                Step::SwitchPool { pool: POOL, word: always(2) },
            ])
            .unwrap();
        let mut harness = Harness::from_dataplane(&mut plane);
        assert_eq!((harness.run(index, &datagram(9)).0, harness.run(index, &datagram(8)).0), (action::TX, action::TX));
        let snapshot = plane.snapshot();
        assert_eq!([1, 2].map(|id| snapshot.member(member(id)).packets), [2, 1], "a known flow stays where it is");
        plane.outlive().unwrap();
        drop((harness, plane));
        assert_eq!([attached("eth1").unwrap(), attached("eth2").unwrap()], before);

        Dataplane::adopt(&settings, &links(), &folder.hold(), &set).unwrap().stop();
        assert_eq!((attached("eth1"), attached("eth2")), (None, None));
        assert_eq!(folder.entries(), Vec::<String>::new());
    });
}

#[test]
fn flows_of_members_that_died_with_the_daemon_are_forgotten() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let settings = settings(&[("eth1", Mode::Native)]);
        let set = killed(&folder, &settings);
        let mut plane = Dataplane::adopt(&settings, &links(), &folder.hold(), &set).unwrap();
        plane.publish(&[Step::KillMember { id: member(1) }]).unwrap();
        drop(plane);
        let plane = Dataplane::adopt(&settings, &links(), &folder.hold(), &set).unwrap();
        assert!(plane.maps.flows.values().iter().flat_map(Bucket::entries).all(|word| word.get() == 0));
        assert!(plane.live().members.is_empty());
        plane.stop();
    });
}

#[test]
fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    in_namespace(|| {
        let folder = Folder::new();
        let first = folder.hold();
        let error = Pins::hold(&folder.0).unwrap_err().to_string();
        let (pid, path) = (std::process::id(), folder.0.display());
        assert!(error.contains(&format!("another maglevd (process {pid}) holds the pin folder {path}")), "{error}");
        drop(first);
        folder.hold();
        let error = Pins::hold(&std::env::temp_dir()).unwrap_err().to_string();
        assert!(error.contains("is not in a BPF file system") && error.contains("pin: off"), "{error}");
    });
}

#[test]
fn a_set_that_cannot_be_adopted_forwards_until_it_is_replaced() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        let old = settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]);
        let set = killed(&folder, &old);
        let before = attached("eth1").unwrap();
        let new = Settings { hash_key: HashKey::from_bytes([8; 16]), flow_sets: 128, ..old.clone() };
        assert_eq!(
            Fingerprint::from_settings(&new).unwrap().differences(&Fingerprint::from_settings(&old).unwrap()),
            ["`hash_key`", "`flow_table`"]
        );
        let error = Dataplane::adopt(&new, &links(), &folder.hold(), &set).unwrap_err().to_string();
        assert!(error.contains(FLOWS) && error.contains("entries"), "{error}");
        assert!(Dataplane::adopt(&old, &links(), &folder.hold(), "v1-none-7").is_err());

        // One that fails to start leaves everything as it was.
        drop(Dataplane::replace(&new, &links(), &folder.hold()).unwrap());
        assert_eq!((attached("eth1"), attached("eth2")), (Some(before), Some(before)));
        assert!(folder.entries().iter().all(|entry| entry.starts_with(&set) || entry.starts_with("links/")));

        let mut plane = Dataplane::replace(&new, &links(), &folder.hold()).unwrap();
        plane.publish(&first_plan()).unwrap();
        assert_eq!((attached("eth1"), attached("eth2")), (Some(before), Some(before)), "until it can forward");
        plane.outlive().unwrap();
        let after = attached("eth1").unwrap();
        assert_ne!(after.program, before.program);
        assert_eq!(attached("eth2"), Some(after));
        assert!(!folder.entries().iter().any(|entry| entry.starts_with(&set)));
        plane.stop();
        assert_eq!((attached("eth1"), attached("eth2")), (None, None));
    });
}

#[test]
fn interfaces_that_changed_meanwhile_are_attached_anew_or_let_go() {
    in_namespace(|| {
        let (peer, folder) = (two_veths(), Folder::new());
        let old = settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]);
        let set = killed(&folder, &old);
        ip("link del eth2");
        peer.connect("eth2", "eth2");
        let mut plane = Dataplane::adopt(&old, &links(), &folder.hold(), &set).unwrap();
        assert_eq!(attached("eth1"), attached("eth2"));
        plane.outlive().unwrap();
        // One that is made anew under a living daemon is pinned too.
        ip("link del eth2");
        peer.connect("eth2", "eth2");
        assert!(plane.refresh(&links()).problems.is_empty());
        drop(plane);
        assert_eq!((attached("eth1"), attached("eth2").is_some()), (attached("eth2"), true));
        let links_pinned =
            |folder: &Folder| folder.entries().iter().filter(|entry| entry.starts_with("links/")).count();
        assert_eq!(links_pinned(&folder), 2);

        let fewer = settings(&[("eth1", Mode::Generic)]);
        let error = Dataplane::replace(&fewer, &links(), &folder.hold()).unwrap_err().to_string();
        assert!(error.contains("eth1: a change to generic mode") && error.contains("--cut"), "{error}");
        assert_eq!(attached("eth1").unwrap().at, XdpAt::Native, "it forwards still");
        let fewer = Settings { cut: true, ..fewer };
        let mut plane = Dataplane::replace(&fewer, &links(), &folder.hold()).unwrap();
        assert_eq!(attached("eth1").unwrap().at, XdpAt::Generic, "a link cannot change its mode");
        assert!(attached("eth2").is_some());
        plane.outlive().unwrap();
        assert_eq!((attached("eth2"), links_pinned(&folder)), (None, 1));
        plane.stop();
    });
}

#[test]
fn a_program_that_is_not_pinned_here_is_foreign() {
    in_namespace(|| {
        let (_peer, folder, other) = (two_veths(), Folder::new(), Folder::new());
        let settings = settings(&[("eth1", Mode::Native)]);
        let set = killed(&folder, &settings);
        let before = attached("eth1");
        let error = Dataplane::replace(&settings, &links(), &other.hold()).unwrap_err().to_string();
        assert!(error.contains("eth1 already runs XDP program 'maglev'"), "{error}");
        assert_eq!((attached("eth1"), other.entries()), (before, Vec::new()));
        let traced = Settings { trace: true, ..settings };
        assert!(Dataplane::adopt(&traced, &links(), &folder.hold(), &set).unwrap_err().to_string().contains("`trace`"));
    });
}
