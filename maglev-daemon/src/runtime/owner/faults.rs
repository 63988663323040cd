//! Faults found by review, through the owner: its orders to a data plane that fails, in virtual time.

use std::cell::Cell;

use maglev_probe::probe::Trust;
use maglev_testing::TempDir;
use maglev_testing::matrix::Row;
use tokio::sync::mpsc;

use super::*;
use crate::http::{Request, SentFile, Snapshots};
use crate::runtime::dataplane::testing::{self, Ordered};
use crate::runtime::snapshot;
use maglev_core::reconcile::Event;
use maglev_model::Name;
use maglev_store::FileStore;

mod data_plane;

thread_local! {
    static TIME: Cell<Duration> = const { Cell::new(Duration::from_secs(1)) };
}

/// An owner, and its services file.
struct Site {
    owner: Owner,
    ordered: Ordered,
    directory: TempDir,
    /// Writes of the services file.
    finished: mpsc::UnboundedReceiver<Event>,
    /// Data planes for reloads.
    prepared: mpsc::UnboundedReceiver<PreparedPlane>,
}

const SERVICES: &str = "pools:\n  - { name: web, backends: [{ name: a, address: 10.9.2.11 }, { name: b, address: \
                        10.9.2.12 }, { name: c, address: 10.9.2.13 }, { name: d, address: 10.9.2.14 }] }\nvips:\n  - { name: \
                        www, address: 203.0.113.10, port: 80, protocol: tcp, pool: web }\n";

impl Site {
    /// An owner that has published its services.
    fn start() -> Self {
        let directory = TempDir::new();
        let node = directory.path().join("maglev.yaml");
        let key = "services: services.yaml\nhash_key: '000102030405060708090a0b0c0d0e0f'";
        std::fs::write(
            &node,
            format!("interfaces: [{{ name: eth0 }}]\nencap: {{ kind: ipip, source: 10.64.0.1 }}\n{key}\n"),
        )
        .unwrap();
        std::fs::write(directory.path().join("services.yaml"), SERVICES).unwrap();
        let config = maglev_store::load_node(&node).unwrap();
        let (store, _) = FileStore::open(&config.services, &config.rules()).unwrap();
        let services = Services::clone(store.services());
        let clock = Clock::from_source(|| Ok(TIME.get())).unwrap();
        let (done, finished) = mpsc::unbounded_channel();
        let (dataplane, ordered) = testing::worker();
        let (prepared, successors) = mpsc::unbounded_channel();
        let journal = Journal::start();
        let tools = Tools {
            dataplane,
            disk: Disk::start(store, done).unwrap(),
            resolver: Resolver::start(mpsc::channel(16).0).unwrap(),
            scheduler: Scheduler::new(mpsc::channel(16).0, Trust::from_system(), Arc::new(|| TIME.get())),
            journal,
            records: mpsc::unbounded_channel().0,
            counted: mpsc::unbounded_channel().0,
            prepared,
            manager: Manager::new(None, None),
            heartbeat: Heartbeat::new(None),
        };
        let found = Beginning {
            facts: Facts::testing(&clock),
            interfaces: Refreshed::default(),
            needed: Needed::default(),
            adopted: None,
            in_use: InUse::new(),
            served: Vec::new(),
        };
        let (_, _, generation) = Snapshots::channel();
        let snapshots = snapshot::Snapshots::new(generation);
        let mut owner = Owner::new(Files::new(&node, config), found, tools, snapshots, clock);
        let request = owner.expect(Waiting::Start(oneshot::channel().0));
        owner.reconcile(Event::Load { request, services });
        owner.settle();
        let mut site = Self { owner, ordered, directory, finished, prepared: successors };
        assert_eq!(site.ordered.plans(), 1);
        site.take(Input::Event(Event::Published(Ok(()))));
        site
    }

    fn take(&mut self, input: Input) {
        self.owner.take(input);
        self.owner.settle();
    }

    /// Carries out no plan for so long, while a next hop flaps; how many plans were ordered.
    fn fail(&mut self, milliseconds: u64) -> usize {
        let mut attempts = 0;
        for elapsed in 0..milliseconds / 10 {
            TIME.set(TIME.get() + Duration::from_millis(10));
            let resolution = Resolution::Resolved {
                interface: 2,
                mac: [2, 0, 0, 0, 0, (elapsed % 2) as u8],
                gateway: None,
                mtu: None,
            };
            self.take(Input::Event(Event::NextHop { address: [10, 9, 2, 11].into(), resolution }));
            if self.owner.node.deadline().is_some_and(|due| due <= TIME.get()) {
                self.take(Input::Due);
            }
            for _ in 0..self.ordered.plans() {
                attempts += 1;
                self.take(Input::Event(Event::Published(Err("no memory".to_owned()))));
            }
        }
        attempts
    }

    /// Reloads the configuration.
    async fn reload(&mut self, force: bool) -> Answer<view::Reloaded> {
        let (reply, mut answer) = oneshot::channel();
        self.take(Input::Request(Request::Reload { force, by: By::default(), reply }));
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
        let saved = self.finished.recv().await.unwrap();
        self.take(Input::Event(saved));
        while self.ordered.plans() > 0 {
            self.take(Input::Event(Event::Published(Ok(()))));
        }
        answer.try_recv().unwrap()
    }

    fn write(&self, services: &str) {
        std::fs::write(self.directory.path().join("services.yaml"), services).unwrap();
    }

    /// The outcome of a change, once it is saved and carried out.
    async fn change(&mut self, change: Change) -> Answer<()> {
        let (reply, mut answer) = oneshot::channel();
        self.take(Input::Request(Request::Change { change, force: false, by: By::default(), reply }));
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
        let saved = self.finished.recv().await.unwrap();
        self.take(Input::Event(saved));
        while self.ordered.plans() > 0 {
            self.take(Input::Event(Event::Published(Ok(()))));
        }
        answer.try_recv().unwrap()
    }
}

#[tokio::test]
async fn a_plan_that_fails_is_ordered_no_more_often_than_the_pauses_allow() {
    let mut row = Row::fault("R1", "through the owner: a plan fails for 63 s while a next hop flaps each 10 ms");
    let mut site = Site::start();
    let weight = Change::SetWeight {
        pool: Name::parse("web").unwrap(),
        backend: Name::parse("b").unwrap(),
        weight: maglev_model::Weight(7),
    };
    let (reply, mut answer) = oneshot::channel();
    site.take(Input::Request(Request::Change { change: weight, force: false, by: By::default(), reply }));
    let saved = site.finished.recv().await.unwrap();
    site.take(Input::Event(saved));
    let attempts = site.fail(63_000);
    let refused = answer.try_recv().unwrap().unwrap_err().error;
    assert!(refused.starts_with("saved, but not applied: no memory; next try in 100 ms"), "{refused}");
    // After 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5 and 51.1 seconds.
    assert!((9..=11).contains(&attempts), "{attempts}");
    let shown = site.owner.snapshot().shown.status().at(TIME.get() - Duration::from_secs(1)).out_of_sync.unwrap();
    assert!(shown.reason == "no memory" && shown.next_try_milliseconds.is_some_and(|left| left <= 30_000), "{shown:?}");
    TIME.set(TIME.get() + Duration::from_secs(30));
    site.take(Input::Due);
    while site.ordered.plans() > 0 {
        site.take(Input::Event(Event::Published(Ok(()))));
    }
    assert_eq!(site.owner.snapshot().shown.status().out_of_sync, None);
    row.says(format!("{attempts} attempts"));
}

#[tokio::test]
async fn a_reload_that_takes_out_too_much_is_refused_and_its_file_is_not_overwritten() {
    let _row = Row::fault("C5", "through the owner: a file without services, by `reload`, SIGHUP and `plan reload`");
    let mut site = Site::start();
    site.write("pools: []\nvips: []\n");
    let refused = site.reload(false).await.unwrap_err().error;
    assert!(
        refused.starts_with("nothing changed: pool web: takes out 4 of 4") && refused.ends_with("--force does it"),
        "{refused}"
    );
    // A signal has no force.
    site.take(Input::Hangup);
    assert_eq!(site.owner.last_reload.as_ref().map(|last| last.successful), Some(false));
    let planned = site.owner.plan_reload().unwrap();
    assert!(planned.refused.is_some_and(|refused| refused.contains("4 of 4")));
    assert_eq!((planned.changes.vips.removed, planned.changes.backends.removed), (1, 4));
    // A refused file is not overwritten by a change.
    let pool = Name::parse("new").unwrap();
    let refused = site.change(Change::AddPool(maglev_model::Pool::new(pool.clone()))).await.unwrap_err().error;
    assert!(refused.contains("was edited since it was read"), "{refused}");
    let done = site.reload(true).await.unwrap();
    assert_eq!((done.changes.vips.removed, done.changes.pools.removed, done.changes.backends.removed), (1, 1, 4));
    site.change(Change::AddPool(maglev_model::Pool::new(pool))).await.unwrap();
}

#[tokio::test]
async fn a_node_is_drained_while_a_reload_waits_for_the_disk() {
    let _row = Row::fault(
        "R8",
        "through the owner: a change is stuck on the disk, a reload waits for it, and the node is drained",
    );
    let mut site = Site::start();
    let add = |name: &str| Change::AddPool(maglev_model::Pool::new(Name::parse(name).unwrap()));
    let change = |change| {
        let (reply, answer) = oneshot::channel();
        (Input::Request(Request::Change { change, force: false, by: By::default(), reply }), answer)
    };
    let (first, mut first_answer) = change(add("first"));
    site.take(first);
    let (reply, mut reloaded) = oneshot::channel();
    site.take(Input::Request(Request::Reload { force: false, by: By::default(), reply }));
    let (second, mut second_answer) = change(add("second"));
    site.take(second);
    assert!(site.owner.takes_requests());
    let order = node_drain::Order { since: maglev_model::UnixTime(0), reason: None, last_node: false };
    let (reply, mut drained) = oneshot::channel();
    site.take(Input::Request(Request::DrainNode { order, caller: Caller::default(), reply }));
    site.take(Input::Drain(node_drain::Event::Saved(Ok(()))));
    assert_eq!(drained.try_recv().unwrap().map_err(|error| error.error), Ok(()));
    assert!(first_answer.try_recv().is_err() && reloaded.try_recv().is_err(), "the disk is stuck");

    for (case, outcome) in
        [("the first change and the reload", &mut first_answer), ("the second change", &mut second_answer)]
    {
        let saved = site.finished.recv().await.unwrap();
        site.take(Input::Event(saved));
        while site.ordered.plans() > 0 {
            site.take(Input::Event(Event::Published(Ok(()))));
        }
        assert!(outcome.try_recv().unwrap().is_ok(), "{case}");
        assert!(reloaded.try_recv().map_or(case == "the second change", |answer| answer.is_ok()), "{case}");
    }
}

#[tokio::test]
async fn a_reload_returns_its_changes() {
    let _row = Row::fault("C5", "through the owner: what a reload adds, changes and removes");
    let mut site = Site::start();
    site.write(
        &SERVICES
            .replace("name: d, address: 10.9.2.14", "name: e, address: 10.9.2.15")
            .replace("10.9.2.13", "10.9.2.13, weight: 7"),
    );
    let done = site.reload(false).await.unwrap();
    let counts = done.changes.backends;
    assert_eq!((counts.added, counts.changed, counts.removed), (1, 1, 1));
    assert_eq!(done.changes.to_string(), "backends 1 added, 1 changed, 1 removed");
    assert_eq!(site.reload(false).await.unwrap().changes.to_string(), "no change");
}

#[tokio::test]
async fn a_file_that_does_not_know_the_last_change_is_refused_and_a_rollback_is_a_revision() {
    let mut site = Site::start();
    let web = Name::parse("web").unwrap();
    let weight = |weight| Change::SetWeight {
        pool: web.clone(),
        backend: Name::parse("b").unwrap(),
        weight: maglev_model::Weight(weight),
    };
    site.change(weight(7)).await.unwrap();
    let edited = std::fs::read_to_string(site.directory.path().join("services.yaml")).unwrap();
    assert!(edited.starts_with("# revision 2\n"), "{edited}");
    site.change(weight(8)).await.unwrap();
    site.write(&edited.replace("10.9.2.13, weight: 100", "10.9.2.13, weight: 9"));
    let planned = site.owner.plan_reload().unwrap().refused.unwrap();
    let refused = site.reload(false).await.unwrap_err().error;
    assert_eq!(refused, format!("nothing changed: {planned}"));
    assert!(
        refused.contains("based on revision 2") && refused.contains("3 set weight of backend b of pool web to 8"),
        "{refused}"
    );
    let done = site.reload(true).await.unwrap();
    assert_eq!(done.changes.backends.changed, 2);

    let history = site.owner.tools.disk.stored().borrow().history.clone();
    let commands: Vec<_> = history.revisions().map(|found| (found.revision, found.author.command.clone())).collect();
    assert_eq!(commands[3], (4, "reload services.yaml".to_owned()));
    let (reply, mut answer) = oneshot::channel();
    let services = history.services(3).unwrap();
    let by = By { why: Some("it was better".to_owned()), ..By::default() };
    site.take(Input::Request(Request::Rollback { revision: 3, services: services.clone(), force: false, by, reply }));
    let saved = site.finished.recv().await.unwrap();
    site.take(Input::Event(saved));
    while site.ordered.plans() > 0 {
        site.take(Input::Event(Event::Published(Ok(()))));
    }
    let done = answer.try_recv().unwrap().unwrap();
    assert_eq!((done.to, done.revision, done.changes.backends.changed), (3, Some(5), 2));
    let history = site.owner.tools.disk.stored().borrow().history.clone();
    assert_eq!(history.services(5).unwrap(), services);
    assert_eq!(history.newest().unwrap().author.why.as_deref(), Some("it was better"));
}

/// A file as a client sends it.
fn sent(base: Option<u64>, text: &str, site: &Site) -> SentFile {
    let rules = site.owner.files.running().rules();
    let services = maglev_config::decode_services(std::path::Path::new("web.yaml"), text, &rules).unwrap();
    SentFile { name: "web.yaml".to_owned(), base, services }
}

impl Site {
    async fn apply(&mut self, file: SentFile, force: bool) -> Answer<view::Applied> {
        let planned = self.owner.plan_file(&file, force);
        let (reply, mut answer) = oneshot::channel();
        let by = By { why: Some("from git".to_owned()), ..By::default() };
        self.take(Input::Request(Request::Apply { file, force, by, reply }));
        if let Ok(answer) = answer.try_recv() {
            let refused = answer.as_ref().err().cloned();
            assert_eq!(refused, planned, "the preview shows the outcome of the order");
            return answer;
        }
        assert_eq!(planned, None);
        let saved = self.finished.recv().await.unwrap();
        self.take(Input::Event(saved));
        while self.ordered.plans() > 0 {
            self.take(Input::Event(Event::Published(Ok(()))));
        }
        answer.try_recv().unwrap()
    }
}

#[tokio::test]
async fn a_file_is_applied_as_one_revision_and_one_that_knows_less_is_refused() {
    let mut site = Site::start();
    let unchanged = site.apply(sent(None, SERVICES, &site), false).await.unwrap();
    assert_eq!((unchanged.revision, unchanged.changes.to_string()), (None, "no change".to_owned()));
    let empty = sent(None, "pools: []\nvips: []\n", &site);
    let refused = site.apply(empty, false).await.unwrap_err();
    assert!(refused.kind == view::ErrorKind::Conflict && refused.error.contains("takes out 4 of 4"), "{refused}");
    assert!(site.owner.tools.disk.stored().borrow().history.newest().is_none(), "nothing was kept");

    // One step is one revision, regardless of the number of changes.
    let other = SERVICES
        .replace("name: d, address: 10.9.2.14", "name: e, address: 10.9.2.15")
        .replace("10.9.2.13", "10.9.2.13, weight: 7");
    let done = site.apply(sent(Some(1), &other, &site), false).await.unwrap();
    assert_eq!(
        (done.revision, done.changes.to_string()),
        (Some(2), "backends 1 added, 1 changed, 1 removed".to_owned())
    );
    let stored = site.owner.tools.disk.stored().borrow().clone();
    let author = &stored.history.newest().unwrap().author;
    assert_eq!((author.command.as_str(), author.why.as_deref()), ("apply services from web.yaml", Some("from git")));
    assert_eq!((stored.revision, &*stored.services), (2, &sent(None, &other, &site).services));
    assert_eq!(site.apply(sent(Some(1), &other, &site), false).await.unwrap().revision, None, "the same file again");

    // Another change was made since the file was exported.
    let weight = maglev_model::Weight(9);
    let (pool, backend) = (Name::parse("web").unwrap(), Name::parse("b").unwrap());
    site.change(Change::SetWeight { pool, backend, weight }).await.unwrap();
    let refused = site.apply(sent(Some(2), SERVICES, &site), false).await.unwrap_err();
    assert!(
        refused.kind == view::ErrorKind::Conflict
            && refused.error.starts_with(
                "nothing changed: web.yaml is based on revision 2, and one revision has changed since: 3 set weight"
            )
            && refused.error.contains("or --force"),
        "{refused}"
    );
    let done = site.apply(sent(Some(2), SERVICES, &site), true).await.unwrap();
    assert_eq!(done.revision, Some(4));
    // A file without a revision replaces all services.
    assert_eq!(site.apply(sent(None, &other, &site), false).await.unwrap().revision, Some(5));
    // An edit of the daemon's own file that was not reloaded is not overwritten.
    site.write(&other);
    let refused = site.apply(sent(None, SERVICES, &site), false).await.unwrap_err();
    assert!(
        refused.kind == view::ErrorKind::Failed && refused.error.contains("was edited since it was read"),
        "{refused}"
    );
}
