//! The history of the services over HTTP: its revisions, their contents and how two of them differ, read from the file by the
//! rendering thread; and rollback. It must not know how the history is stored.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use maglev_api::{Answer, view};
use maglev_model::{Delta, Services};
use maglev_store::{Reader, Revision};
use serde::Deserialize;

use super::changes::{parse_backend, parse_name};
use super::refused::Refused;
use super::{By, Caller, Handle, Page, Rendered, Request};

type Reply<T> = Result<Json<T>, Refused>;

/// The query of `GET /v1/history`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    pool: Option<String>,
    backend: Option<String>,
    /// The earliest time, in milliseconds since 1970-01-01T00:00:00Z.
    since: Option<u64>,
}

pub(super) async fn list(
    State(handle): State<Handle>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Reply<view::History> {
    let Query(HistoryQuery { pool, backend, since }) =
        query.map_err(|rejection| view::Error::invalid(rejection.body_text()))?;
    let backend = match (&pool, backend) {
        (Some(pool), Some(name)) => Some(parse_backend(pool, &name).map(|(pool, name)| format!("{pool}/{name}"))?),
        (None, Some(_)) => return Err(view::Error::invalid("backend: needs `pool`").into()),
        (_, None) => None,
    };
    let pool = pool.map(|pool| parse_name("pool", &pool)).transpose()?;
    let reader = handle.stored.borrow().history.clone();
    let is_wanted = |revision: &&Revision| {
        let of_pool = pool.as_ref().is_none_or(|pool| revision.pools.iter().any(|found| found == pool.as_str()));
        // A revision with very many backends lists none of them: it may affect this one.
        let of_backend = backend.as_ref().is_none_or(|name| revision.backends.contains(name) || lists_none(revision));
        of_pool && of_backend && since.is_none_or(|since| revision.unix_milliseconds >= since)
    };
    let numbers = || reader.revisions().map(|revision| revision.revision);
    let (oldest, newest) = (numbers().next().unwrap_or_default(), numbers().next_back().unwrap_or_default());
    let revisions = reader.revisions().rev().filter(is_wanted).map(shown).collect();
    Ok(Json(view::History { revisions, oldest, newest }))
}

/// Whether a revision affects backends that it does not list.
fn lists_none(revision: &Revision) -> bool {
    let counts = revision.counts().backends;
    revision.backends.is_empty() && counts.added + counts.changed + counts.removed > 0
}

fn shown(revision: &Revision) -> view::Revision {
    view::Revision {
        revision: revision.revision,
        unix_milliseconds: revision.unix_milliseconds,
        uid: revision.author.uid,
        pid: revision.author.pid,
        command: revision.author.command.clone(),
        why: revision.author.why.clone(),
        pools: revision.pools.clone(),
        backends: revision.backends.clone(),
        changes: revision.counts().into(),
        digest: revision.digest.clone(),
    }
}

pub(super) async fn show(
    State(handle): State<Handle>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<String>,
) -> Result<Page, Refused> {
    let number = parse_revision("revision", &number)?;
    let reader = handle.stored.borrow().history.clone();
    let content = move || {
        let services = read(&reader, number)?;
        let found = reader.revisions().find(|found| found.revision == number);
        let mut revision = found.map(shown).ok_or_else(|| view::Error::invalid("unknown revision"))?;
        revision.digest = Some(format!("{:#}", maglev_model::digest::Digest::from_services(&services)));
        Ok(view::RevisionContent { revision, services: maglev_config::encode_services(&services) })
    };
    handle.pages.once(handle.wanted(caller), || Rendered::json(content)).await.map_err(Refused)
}

/// The query of `GET /v1/history/diff`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    from: String,
    to: String,
}

pub(super) async fn diff(
    State(handle): State<Handle>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<Page, Refused> {
    let Query(DiffQuery { from, to }) = query.map_err(|rejection| view::Error::invalid(rejection.body_text()))?;
    let (from, to) = (parse_revision("from", &from)?, parse_revision("to", &to)?);
    let reader = handle.stored.borrow().history.clone();
    let difference = move || {
        let (before, after) = (read(&reader, from)?, read(&reader, to)?);
        let changes = before.difference(&after).into();
        Ok(view::RevisionDiff { from, to, changes, lines: lines(&before, &after) })
    };
    handle.pages.once(handle.wanted(caller), || Rendered::json(difference)).await.map_err(Refused)
}

/// One line for each object that differs, in the order of the second.
pub(super) fn lines(before: &Services, after: &Services) -> Vec<view::DiffLine> {
    let (old, new) = (Delta::between(after, before), Delta::between(before, after));
    let mut lines = objects(&old.set, &new.set, false);
    lines.extend(objects(&new.set, &old.set, true));
    lines.sort_by(|a, b| (name_of(&a.object), a.added).cmp(&(name_of(&b.object), b.added)));
    lines
}

/// The part of an object's line that names it.
fn name_of(object: &str) -> &str {
    object.split_once(": ").map_or(object, |(name, _)| name)
}

/// The objects of one side, without pools that are present for their backends alone: those are the same on the other side.
fn objects(set: &Services, other: &Services, added: bool) -> Vec<view::DiffLine> {
    let text = maglev_config::object_lines(set);
    let same: std::collections::BTreeSet<String> = maglev_config::object_lines(other).into_iter().collect();
    let line = |object: String| view::DiffLine { added, object };
    text.into_iter().filter(|object| !same.contains(object)).map(line).collect()
}

pub(super) async fn roll_back(
    State(handle): State<Handle>,
    by: By,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::RolledBack> {
    let view::NewRollback { revision, force } = super::routes::parse(body)?;
    let services = handle.services_at(revision).await?;
    handle.ask(|reply| Request::Rollback { revision, services, force, by, reply }).await.map(Json).map_err(Refused)
}

pub(super) async fn plan(State(handle): State<Handle>, Path(number): Path<String>) -> Reply<view::PlannedRollback> {
    let services = handle.services_at(parse_revision("revision", &number)?).await?;
    handle.ask(|reply| Request::PlanRollback { services, reply }).await.map(Json).map_err(Refused)
}

impl Handle {
    /// The services of a revision, read by the rendering thread.
    async fn services_at(&self, revision: u64) -> Answer<Services> {
        let reader = self.stored.borrow().history.clone();
        self.pages.compute(move || read(&reader, revision)).await?
    }
}

fn read(reader: &Reader, revision: u64) -> Answer<Services> {
    reader.services(revision).map_err(view::Error::invalid)
}

fn parse_revision(field: &str, text: &str) -> Answer<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    let shown = maglev_model::shown(text);
    number.ok_or_else(|| {
        view::Error::invalid(format!("{field}: {shown} is not a revision; allowed: a number, see `maglev history`"))
    })
}
