//! The services as a whole over HTTP: exported as a file, compared with one, replaced by one. It must not know whether a file may
//! be applied.

use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use maglev_api::{Answer, FILE_HEADER, view};
use maglev_config::{Problem, Problems};
use maglev_model::{Rules, Services, shown};
use maglev_store::Stored;
use tokio::sync::Semaphore;

use super::history::lines;
use super::refused::Refused;
use super::routes::{Force, forced};
use super::{By, Caller, Handle, Page, Rendered, Request, Subject};

/// A services file that a client sent, valid in itself.
#[derive(Debug, Default)]
pub struct SentFile {
    /// Its name at the client.
    pub name: String,
    /// The revision that its first line names.
    pub base: Option<u64>,
    /// Its services.
    pub services: Services,
}

pub(super) async fn export(
    State(handle): State<Handle>,
    Extension(caller): Extension<Caller>,
) -> Result<Page, Refused> {
    let stored = handle.stored.clone();
    let render = async {
        let exported = move || Rendered::json(|| Ok(exported(&Stored::clone(&stored.borrow()))));
        handle.pages.compute(exported).await?
    };
    handle.pages.page(Subject::Services, handle.wanted(caller), render).await.map_err(Refused)
}

fn exported(Stored { services, revision, history: _ }: &Stored) -> view::ServicesFile {
    view::ServicesFile {
        revision: *revision,
        digest: format!("{:#}", maglev_model::digest::Digest::from_services(services)),
        services: maglev_store::with_revision(&maglev_config::encode_services(services), *revision),
    }
}

pub(super) async fn plan(
    State(handle): State<Handle>,
    Extension(caller): Extension<Caller>,
    query: Force,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Page, Refused> {
    let force = forced(query)?;
    let rules = *handle.rules.borrow();
    let file = Arc::new(decode(name_of(&headers), body, rules).await?);
    let stored = handle.stored.borrow().clone();
    let reviewed = Arc::clone(&file);
    let refused = handle.ask(|reply| Request::ReviewFile { file: reviewed, force, reply }).await?;
    let planned = move || Rendered::json(|| Ok(compare(&stored, &file, refused)));
    handle.pages.once(handle.wanted(caller), planned).await.map_err(Refused)
}

fn compare(stored: &Stored, file: &SentFile, refused: Option<view::Error>) -> view::PlannedServices {
    let (before, SentFile { name, base, services }) = (&stored.services, file);
    view::PlannedServices {
        file: name.clone(),
        base: *base,
        revision: stored.revision,
        changes: before.difference(services).into(),
        lines: lines(before, services),
        refused,
    }
}

pub(super) async fn apply(
    State(handle): State<Handle>,
    by: By,
    query: Force,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<view::Applied>, Refused> {
    let force = forced(query)?;
    let rules = *handle.rules.borrow();
    let file = decode(name_of(&headers), body, rules).await?;
    handle.ask(|reply| Request::Apply { file, force, by, reply }).await.map(Json).map_err(Refused)
}

/// The client's name for its file.
fn name_of(headers: &HeaderMap) -> String {
    let name = headers.get(FILE_HEADER).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    name.unwrap_or_else(|| "file".to_owned())
}

/// Parses a file, one at a time: a large one takes a CPU for a second, and much more memory than its text has.
async fn decode(name: String, body: Bytes, rules: Rules) -> Answer<SentFile> {
    static ONE: Semaphore = Semaphore::const_new(1);
    let failed = || view::Error::failed("cannot read the file");
    let turn = ONE.acquire().await.map_err(|_| failed())?;
    let decoded = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read(&name, &body, &rules).map_err(|problems| invalid(&name, &problems))
    });
    decoded.await.map_err(|_| failed())?
}

fn read(name: &str, body: &[u8], rules: &Rules) -> Result<SentFile, Problems> {
    let file = Path::new(name);
    let text = std::str::from_utf8(body).map_err(|_| Problem::new(file, "not text: expected YAML in UTF-8"))?;
    let (name, base) = (name.to_owned(), maglev_store::revision_of(text));
    Ok(SentFile { name, base, services: maglev_config::decode_services(file, text, rules)? })
}

/// One mistake in one line, several in as many more.
fn invalid(name: &str, problems: &Problems) -> view::Error {
    let details: Vec<_> = problems.lines().collect();
    if let [problem] = details.as_slice() {
        return view::Error::invalid(format!("nothing changed: {problem}"));
    }
    let line = format!("nothing changed: {} errors in {}:", problems.count(), shown(name));
    let error = view::Error::invalid(line);
    view::Error { details, ..error }
}
