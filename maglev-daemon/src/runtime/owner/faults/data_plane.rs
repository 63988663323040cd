//! Reloads that change settings of the data plane: what is refused changes nothing, and no change of services comes in between.

use maglev_dataplane::Refresh;

use super::*;

impl Site {
    /// Replaces a text of `maglev.yaml`.
    fn edit(&self, from: &str, to: &str) {
        let file = self.directory.path().join("maglev.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Orders a reload, which waits for its data plane.
    fn begin_reload(&mut self) -> oneshot::Receiver<Answer<view::Reloaded>> {
        let (reply, mut answer) = oneshot::channel();
        self.take(Input::Request(Request::Reload { force: false, by: By::default(), reply }));
        assert!(answer.try_recv().is_err() && self.owner.succession.is_preparing());
        // This data plane answers no order: the outcome is the test's.
        assert!(self.ordered.plans() == 0 && self.prepared.try_recv().is_err());
        answer
    }
}

#[tokio::test]
async fn a_data_plane_that_cannot_be_prepared_refuses_the_reload_and_no_change_comes_in_between() {
    let mut site = Site::start();
    site.edit("{ name: eth0 }", "{ name: eth0 }, { name: eth1 }");
    site.edit("10.64.0.1", "10.64.0.0/24");
    site.write(&SERVICES.replace("10.9.2.13", "10.9.2.13, weight: 7"));
    let planned = site.owner.plan_reload().unwrap();
    assert_eq!((planned.data_plane, planned.restart_needed), (vec!["interfaces".into(), "encap".into()], vec![]));
    assert_eq!(planned.refused, None);

    let mut reloaded = site.begin_reload();
    let pool = Name::parse("new").unwrap();
    let change = Change::AddPool(maglev_model::Pool::new(pool.clone()));
    let (reply, mut changed) = oneshot::channel();
    site.take(Input::Request(Request::Change { change, force: false, by: By::default(), reply }));
    assert!(changed.try_recv().is_err() && !site.owner.node.reconciler().services().pools.contains_key(&pool));

    site.take(Input::Prepared(Box::new(Err("interface eth1 does not exist; there are eth0".to_owned()))));
    let refused = reloaded.try_recv().unwrap().unwrap_err();
    assert_eq!(refused.error, "nothing changed: interface eth1 does not exist; there are eth0");
    assert_eq!(refused.kind, view::ErrorKind::Conflict);
    assert_eq!(site.owner.files.running().interfaces.len(), 1);
    assert_eq!(site.owner.last_reload.as_ref().map(|last| last.successful), Some(false));
    // The change that waited begins; the file was edited since it was read.
    site.take(Input::Event(Event::Flush));
    let saved = site.finished.recv().await.unwrap();
    site.take(Input::Event(saved));
    assert!(changed.try_recv().unwrap().unwrap_err().error.contains("was edited since it was read"));
}

#[tokio::test]
async fn services_that_the_next_data_plane_cannot_serve_are_refused_before_one_is_prepared() {
    let mut site = Site::start();
    for (from, to, expected) in [
        ("hash_key", "limits: { backends: 3 }\nhash_key", "limits.backends"),
        ("backends: 3", "backends: 4", ""),
        ("source: 10.64.0.1", "source: 203.0.113.0/24", "203.0.113.10 is within the outer source"),
        ("source: 203.0.113.0/24", "source6: \"2001:db8::1\"", "encap"),
    ] {
        site.edit(from, to);
        let planned = site.owner.plan_reload().unwrap().refused.unwrap_or_default();
        assert!(planned.contains(expected) && planned.is_empty() == expected.is_empty(), "{planned}");
        if !expected.is_empty() {
            let refused = site.reload(false).await.unwrap_err();
            assert!(refused.kind == view::ErrorKind::Invalid, "{refused}");
        }
    }
}

#[tokio::test]
async fn a_new_release_keeps_its_data_plane_while_it_is_on_probation() {
    let mut site = Site::start();
    let (verdict, on_probation) = watch::channel(true);
    site.owner.judged_by(on_probation);
    site.edit("hash_key", "trace: true\nhash_key");
    let planned = site.owner.plan_reload().unwrap().refused.unwrap();
    let refused = site.reload(false).await.unwrap_err().error;
    assert_eq!(refused, format!("nothing changed: {planned}"));
    assert!(refused.contains("on probation"), "{refused}");
    site.edit("trace: true\n", "");
    site.reload(false).await.unwrap();
    site.edit("hash_key", "trace: true\nhash_key");
    verdict.send_replace(false);
    drop(site.begin_reload());
}

#[tokio::test]
async fn a_spent_flow_table_stays_on_probation_and_where_no_other_data_plane_can_be_prepared() {
    let mut site = Site::start();
    let (verdict, on_probation) = watch::channel(true);
    site.owner.judged_by(on_probation);
    site.take(Input::Spent);
    assert!(!site.owner.succession.is_preparing());
    verdict.send_replace(false);
    site.take(Input::Spent);
    assert!(site.owner.succession.is_preparing());
    let change = Change::AddPool(maglev_model::Pool::new(Name::parse("new").unwrap()));
    let (reply, mut changed) = oneshot::channel();
    site.take(Input::Request(Request::Change { change, force: false, by: By::default(), reply }));
    assert!(changed.try_recv().is_err());

    site.take(Input::Prepared(Box::new(Err("no memory".to_owned()))));
    assert!(!site.owner.succession.is_preparing());
    let saved = site.finished.recv().await.unwrap();
    site.take(Input::Event(saved));
    while site.ordered.plans() > 0 {
        site.take(Input::Event(Event::Published(Ok(()))));
    }
    changed.try_recv().unwrap().unwrap();
    // The next sweep reports it again.
    site.take(Input::Spent);
    assert!(site.owner.succession.is_preparing());
}

#[tokio::test]
async fn what_no_other_data_plane_can_take_over_needs_a_restart() {
    let mut site = Site::start();
    site.edit("{ name: eth0 }", "{ name: eth0, mode: generic }");
    let reloaded = site.reload(false).await.unwrap();
    assert_eq!(
        (reloaded.data_plane, reloaded.restart_needed),
        (vec![], vec!["interfaces[].mode (start with --cut)".into()])
    );
    site.edit("000102", "ff0102");
    site.edit("hash_key", "dataplane: { watchdog: 60s }\nhash_key");
    let planned = site.owner.plan_reload().unwrap();
    assert_eq!(planned.restart_needed, ["interfaces[].mode (start with --cut)", "hash_key"]);
    assert_eq!(planned.data_plane, ["dataplane.watchdog"]);

    let mut running = site.owner.files.running().clone();
    running.pin = None;
    site.owner.files = Files::new(&site.directory.path().join("maglev.yaml"), running);
    let planned = site.owner.plan_reload().unwrap();
    let all = ["dataplane.watchdog", "interfaces[].mode (start with --cut)", "hash_key", "dataplane"];
    assert_eq!((planned.restart_needed, planned.data_plane), (all.map(str::to_owned).to_vec(), vec![]));
}

#[tokio::test]
async fn interfaces_of_another_data_plane_are_not_taken_for_those_of_the_present_one() {
    let mut site = Site::start();
    let refreshed = |plane, name: &str| {
        let refresh = Refresh { detached: vec![name.to_owned()], ..Refresh::default() };
        Input::Interfaces(Refreshed { plane, refresh, ..Refreshed::default() })
    };
    site.take(refreshed(0, "eth0"));
    site.take(refreshed(1, "eth1"));
    assert_eq!(site.owner.interfaces.refresh.detached, ["eth0"]);
}
