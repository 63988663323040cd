//! Reloads of `decap.yaml`: the file is read, and what can change while packets pass is changed; a file with errors changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use ipnet::IpNet;
use maglev_api::{Answer, view};
use maglev_common::settings::Mss;
use maglev_config::{OnStop, Problems};
use maglev_dataplane::{DataplaneError, InterfaceSettings};
use maglev_net::links::{Link, Watch};

use super::service::{Origin, Service};
use super::settings::{Settings, mss_word};

impl Service {
    /// Reloads the file.
    pub(super) async fn reload(&mut self, watch: &mut Watch) -> Answer<view::DecapReloaded> {
        let outcome = match watch.list().await {
            Ok(links) => {
                let outcome = self.reload_with(&links);
                self.refresh(&links, watch);
                outcome
            }
            Err(error) => Err(view::Error::failed(format!("nothing changed: {error}"))),
        };
        self.last_reload = Some(view::LastReload { unix_seconds: maglev_api::now().0, successful: outcome.is_ok() });
        match &outcome {
            Ok(view::DecapReloaded { changes, restart_needed }) => {
                tracing::info!(
                    "reloaded: {}",
                    if changes.is_empty() { "no change".to_owned() } else { changes.join("; ") }
                );
                if !restart_needed.is_empty() {
                    tracing::warn!(fields = ?restart_needed, "reloaded; these decap.yaml changes need a restart");
                }
            }
            Err(error) => {
                tracing::error!("reload refused: {error}");
                error.details.iter().for_each(|problem| tracing::error!("{problem}"));
            }
        }
        outcome
    }

    fn reload_with(&mut self, links: &[Link]) -> Answer<view::DecapReloaded> {
        let Origin::File(file) = &self.origin else {
            return Err(view::Error::conflict("nothing changed: there is no file"));
        };
        let wanted = read(file)?;
        wanted.warn();
        let restart_needed = self.restart_needed(&wanted);
        let changes = self.apply(wanted, links)?;
        self.restart_needed.clone_from(&restart_needed);
        Ok(view::DecapReloaded { changes, restart_needed })
    }

    /// The fields that differ from what is in force and cannot change while packets pass.
    fn restart_needed(&self, wanted: &Settings) -> Vec<String> {
        let Settings { interfaces, sources: _, vips: _, mss, pin, on_stop, api } = &self.settings;
        let mode = interfaces.iter().filter(|interface| {
            wanted.interfaces.iter().any(|other| other.name == interface.name && other.mode != interface.mode)
        });
        let mut fields: Vec<_> = mode.map(|interface| format!("interfaces: mode of {}", interface.name)).collect();
        let unpinned = self.program.settings().pin.is_none();
        let differs = [
            ("mss", unpinned && *mss != wanted.mss),
            ("dataplane.pin", *pin != wanted.pin),
            ("dataplane.on_stop", unpinned && *on_stop != wanted.on_stop),
            ("api.socket", api.as_ref().map(|api| &api.socket) != wanted.api.as_ref().map(|api| &api.socket)),
            ("api.metrics", api.as_ref().map(|api| api.metrics) != wanted.api.as_ref().map(|api| api.metrics)),
        ];
        fields.extend(differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field.to_owned()));
        fields
    }

    /// Changes what can change. What may fail comes first: new interfaces, and programs with another MSS.
    fn apply(&mut self, wanted: Settings, links: &[Link]) -> Answer<Vec<String>> {
        let Settings { interfaces, sources, vips, mss, pin: _, on_stop, api: _ } = wanted;
        let added = missing(&interfaces, &self.settings.interfaces);
        let removed = missing(&self.settings.interfaces, &interfaces);
        let mut changes = self.add(&added, links)?;
        if self.program.settings().pin.is_some() && mss != self.settings.mss {
            self.change_mss(mss, &added)?;
            changes.push(format!("mss: {}", mss_word(mss)));
        }
        let failed = |error: DataplaneError| {
            view::Error::failed(format!("{error}; a part of the file is in force: reload again"))
        };
        changes.extend(difference("sources", &self.settings.sources, &sources));
        self.program.accept(&sources).map_err(failed)?;
        self.settings.sources = sources;
        changes.extend(match (&self.settings.vips, &vips) {
            (Some(before), Some(after)) => difference("vips", before, after),
            (None, None) => None,
            (None, Some(after)) => Some(format!("vips: {} instead of those on lo", after.len())),
            (Some(_), None) => Some("vips: those on lo".to_owned()),
        });
        self.serve(vips).map_err(failed)?;
        for InterfaceSettings { name, .. } in &removed {
            self.program.remove(name);
            changes.push(format!("interface {name} removed"));
        }
        // Modes stay as they are attached.
        let in_force = |interface: InterfaceSettings| {
            let before = self.settings.interfaces.iter().find(|before| before.name == interface.name);
            before.cloned().unwrap_or(interface)
        };
        self.settings.interfaces = interfaces.into_iter().map(in_force).collect();
        if self.program.settings().pin.is_some() && on_stop != self.settings.on_stop {
            self.settings.on_stop = on_stop;
            changes.push(format!("on_stop: {}", if on_stop == OnStop::Keep { "keep" } else { "detach" }));
        }
        Ok(changes)
    }

    /// Attaches to further interfaces, to all or to none.
    fn add(&mut self, added: &[InterfaceSettings], links: &[Link]) -> Answer<Vec<String>> {
        for (n, interface) in added.iter().enumerate() {
            if let Err(error) = self.program.add(interface, links) {
                added[..n].iter().for_each(|interface| self.program.take_back(&interface.name));
                return Err(view::Error::conflict(format!("nothing changed: {error}")));
            }
        }
        Ok(added.iter().map(|interface| format!("interface {} added", interface.name)).collect())
    }

    fn change_mss(&mut self, mss: Mss, added: &[InterfaceSettings]) -> Answer<()> {
        if let Err(error) = self.program.set_mss(mss) {
            added.iter().for_each(|interface| self.program.take_back(&interface.name));
            return Err(view::Error::failed(format!("mss: {error}; nothing else changed")));
        }
        self.settings.mss = mss;
        Ok(())
    }
}

fn read(file: &Path) -> Answer<Settings> {
    maglev_store::load_decap(file).map(Settings::from).map_err(|problems| nothing_changed(&problems))
}

/// The error for a file: one line, and one more for each mistake if there are several.
fn nothing_changed(problems: &Problems) -> view::Error {
    let lines: Vec<_> = problems.lines().collect();
    match lines.as_slice() {
        [problem] => view::Error::invalid(format!("nothing changed: {problem}")),
        several => {
            let error = view::Error::invalid(format!("nothing changed: {} errors in the file:", several.len()));
            view::Error { details: lines, ..error }
        }
    }
}

/// Those of some interfaces whose names are not among others.
fn missing(some: &[InterfaceSettings], others: &[InterfaceSettings]) -> Vec<InterfaceSettings> {
    some.iter().filter(|one| others.iter().all(|other| other.name != one.name)).cloned().collect()
}

/// `sources: 1 added, 2 removed`.
fn difference(what: &str, before: &[IpNet], after: &[IpNet]) -> Option<String> {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), after.iter().collect());
    let counts = [(after.difference(&before).count(), "added"), (before.difference(&after).count(), "removed")];
    let counts: Vec<_> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, verb)| format!("{count} {verb}")).collect();
    (!counts.is_empty()).then(|| format!("{what}: {}", counts.join(", ")))
}
