//! The paths of the API: each turns a request into a [`Request`](super::Request) to the runtime, or answers a read
//! from a snapshot. It must not know sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use maglev_api::{Answer, view};
use maglev_core::node_drain;
use maglev_model::{Change, Name, PoolHealth, PoolSettings, Refusal, Service, SettingsChange};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::changes::{self, addition, parse_backend, parse_name, proposed};
use super::refused::{Refused, unknown_path};
use super::{By, Caller, Flow, Handle, Page, Reading, Rendered, Request, Subject};
use super::{capture, doctor, events, history, services};

type Reply<T> = Result<Json<T>, Refused>;

/// All paths.
pub(super) fn routes(handle: Handle) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/vips", get(vips).post(add_vip))
        .route("/vips/{name}", get(vip).patch(set_vip).delete(remove_vip))
        .route("/pools", get(pools).post(add_pool))
        .route("/pools/{name}", get(pool).patch(set_pool).delete(remove_pool))
        .route("/pools/{pool}/backends", post(add_backend))
        .route("/pools/{pool}/backends/{name}", patch(set_backend).get(backend).delete(remove_backend))
        .route("/pools/{pool}/backends/{name}/state", post(set_state))
        .route("/pools/{pool}/backends/{name}/check", post(check_backend))
        .route("/backends", get(backends))
        .route("/plan", post(plan))
        .route("/plan/reload", get(plan_reload))
        .route("/plan/rollback/{revision}", get(history::plan))
        .route("/plan/services", post(services::plan))
        .route("/services", get(services::export).put(services::apply))
        .route("/history", get(history::list))
        .route("/history/diff", get(history::diff))
        .route("/history/{revision}", get(history::show))
        .route("/rollback", post(history::roll_back))
        .route("/counters", get(counters))
        .route("/flow", get(explain))
        .route("/capture", post(capture::capture))
        .route("/bgp/neighbors", get(bgp_neighbors))
        .route("/bgp/neighbors/{name}/reset", post(reset_neighbor))
        .route("/bgp/routes", get(bgp_routes))
        .route("/doctor", get(doctor::examine))
        .route("/node", get(node))
        .route("/node/drain", post(drain_node))
        .route("/node/undrain", post(undrain_node))
        .route("/node/stop", post(stop_node))
        .route("/reload", post(reload))
        .route("/events", get(events::follow))
        .route("/events/recent", get(events::recent))
        .with_state(handle);
    let all = Router::new().nest("/v1", v1).fallback(unknown_path).method_not_allowed_fallback(unknown_method);
    // Bodies are received, within limits, before routing.
    all.layer(DefaultBodyLimit::disable())
}

/// Whether the body of a request is a services file.
pub(super) fn is_file(request: &axum::extract::Request) -> bool {
    matches!(
        (request.method(), request.uri().path()),
        (&Method::PUT, "/v1/services") | (&Method::POST, "/v1/plan/services")
    )
}

pub(crate) async fn unknown_method(method: Method, uri: axum::http::Uri) -> Refused {
    Refused(view::Error::invalid(format!("{} does not take {method}", uri.path())))
}

type Asker = Extension<Caller>;

async fn status(State(handle): State<Handle>, Extension(caller): Asker) -> Result<Page, Refused> {
    handle.page(Subject::Status, caller, |reading| Rendered::json(|| Ok(reading.status()))).await.map_err(Refused)
}

async fn vips(State(handle): State<Handle>, Extension(caller): Asker) -> Result<Page, Refused> {
    handle.page(Subject::Vips, caller, |reading| Rendered::json(|| Ok(reading.vips()))).await.map_err(Refused)
}

async fn vip(State(handle): State<Handle>, Path(name): Path<String>) -> Reply<view::Vip> {
    let (vips, name) = (handle.compute(Reading::vips).await?, parse_name("name", &name)?);
    let found = vips.iter().find(|vip| vip.name == name.as_str());
    let unknown = || Refusal::unknown("VIP", &name, vips.iter().map(|vip| vip.name.as_str()));
    Ok(Json(found.cloned().ok_or_else(unknown)?))
}

async fn add_vip(State(handle): State<Handle>, by: By, body: Result<Bytes, BytesRejection>) -> Reply<view::Done> {
    let view::NewVip { name, address, port, protocol, pool, announce, communities, when_empty, affinity } =
        parse(body)?;
    let service = Service { network: address.0, ports: port.0, protocol: protocol.into() };
    let vip = maglev_model::Vip {
        name: parse_name("name", &name)?,
        service,
        pool: parse_name("pool", &pool)?,
        announce: maglev_model::Announce::default(),
        when_empty: maglev_model::Unserved::default(),
        affinity: maglev_model::Affinity::default(),
    };
    let settings = changes::vip(view::NewForVip { announce, communities, when_empty, affinity })?;
    change(&handle, by, Change::AddVip(settings.applied_to(&vip))).await
}

async fn set_vip(
    State(handle): State<Handle>,
    by: By,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Done> {
    let set = changes::vip(parse(body)?)?;
    change(&handle, by, Change::SetVip { vip: parse_name("name", &name)?, change: set }).await
}

async fn remove_vip(State(handle): State<Handle>, by: By, Path(name): Path<String>) -> Reply<view::Done> {
    change(&handle, by, Change::RemoveVip(parse_name("name", &name)?)).await
}

async fn pools(State(handle): State<Handle>, Extension(caller): Asker) -> Result<Page, Refused> {
    let pools = |reading: &Reading| {
        let (latest, uptime) = (reading.services(), reading.uptime());
        Rendered::json(|| Ok(latest.pools.iter().map(|pool| pool.at(uptime)).collect::<Vec<_>>()))
    };
    handle.page(Subject::Pools, caller, pools).await.map_err(Refused)
}

async fn pool(
    State(handle): State<Handle>,
    Extension(caller): Asker,
    Path(name): Path<String>,
) -> Result<Page, Refused> {
    let name = parse_name("name", &name)?;
    let subject = Subject::Pool(name.to_string());
    handle
        .page(subject, caller, move |reading| Rendered::json(|| find_whole_pool(reading, &name)))
        .await
        .map_err(Refused)
}

fn find_whole_pool(reading: &Reading, name: &Name) -> Answer<view::Pool> {
    let status = reading.services();
    let view::PoolSummary {
        name,
        tracking,
        encap,
        transition,
        in_transition,
        panic,
        health,
        table_digest,
        backends: _,
        usable,
    } = find_pool(&status, name)?.at(reading.uptime());
    let vips = status.vips.iter().filter(|vip| vip.pool == name).map(|vip| vip.name.clone()).collect();
    let of_pool = status.backends.iter().filter(|backend| backend.pool == name);
    let backends = of_pool.map(|backend| backend.at(reading.uptime())).collect();
    Ok(view::Pool {
        name,
        tracking,
        encap,
        transition,
        in_transition,
        panic,
        health,
        table_digest,
        vips,
        usable,
        backends,
    })
}

async fn add_pool(State(handle): State<Handle>, by: By, body: Result<Bytes, BytesRejection>) -> Reply<view::Done> {
    let view::NewPool { name, tracking, transition, min_healthy, encap, health } = parse(body)?;
    let new = view::NewSettings { tracking, transition, min_healthy, encap, health };
    let settings = SettingsChange::from(&new).applied_to(&PoolSettings::default());
    let name = parse_name("name", &name)?;
    let health = changes::health(new.health)?.applied_to(&PoolHealth::default());
    let health = health.map_err(|bad| view::Error::invalid(format!("pool {name}: {bad}")))?;
    let pool = maglev_model::Pool { settings, health, ..maglev_model::Pool::new(name) };
    change(&handle, by, Change::AddPool(pool)).await
}

async fn set_pool(
    State(handle): State<Handle>,
    by: By,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Done> {
    let new: view::NewSettings = parse(body)?;
    let (pool, settings) = (parse_name("name", &name)?, SettingsChange::from(&new));
    let health = changes::health(new.health)?;
    change(&handle, by, Change::SetPool { pool, change: settings, health }).await
}

async fn remove_pool(
    State(handle): State<Handle>,
    by: By,
    Path(name): Path<String>,
    query: Force,
) -> Reply<view::Done> {
    change_by_force(&handle, by, Change::RemovePool(parse_name("name", &name)?), forced(query)?).await
}

async fn backends(State(handle): State<Handle>, Extension(caller): Asker) -> Result<Page, Refused> {
    let backends = |reading: &Reading| {
        let (latest, uptime) = (reading.services(), reading.uptime());
        Rendered::json(|| Ok(latest.backends.iter().map(|backend| backend.at(uptime)).collect::<Vec<_>>()))
    };
    handle.page(Subject::Backends, caller, backends).await.map_err(Refused)
}

async fn backend(State(handle): State<Handle>, Path((pool, name)): Path<(String, String)>) -> Reply<view::Backend> {
    let (pool, name) = parse_backend(&pool, &name)?;
    handle
        .compute(move |reading| find_backend(&reading.services(), reading.uptime(), &pool, &name))
        .await?
        .map(Json)
        .map_err(Refused)
}

fn find_backend(status: &view::Status, uptime: Duration, pool: &Name, name: &Name) -> Answer<view::Backend> {
    find_pool(status, pool)?;
    let of_pool: Vec<_> = status.backends.iter().filter(|backend| backend.pool == pool.as_str()).collect();
    let found = of_pool.iter().copied().find(|backend| backend.name == name.as_str());
    let unknown = || Refusal::unknown_backend(pool, name, of_pool.iter().map(|backend| backend.name.as_str()));
    Ok(found.ok_or_else(unknown)?.at(uptime))
}

async fn add_backend(
    State(handle): State<Handle>,
    by: By,
    Path(pool): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Done> {
    change(&handle, by, addition(&pool, parse(body)?)?).await
}

/// The query of requests that can take something out of service: `?force=true` allows more than the limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForceQuery {
    #[serde(default)]
    force: bool,
}

pub(super) type Force = Result<Query<ForceQuery>, QueryRejection>;

pub(super) fn forced(query: Force) -> Answer<bool> {
    let Query(ForceQuery { force }) = query.map_err(|rejection| view::Error::invalid(rejection.body_text()))?;
    Ok(force)
}

async fn remove_backend(
    State(handle): State<Handle>,
    by: By,
    Path((pool, name)): Path<(String, String)>,
    query: Force,
) -> Reply<view::Done> {
    let force = forced(query)?;
    let (pool, backend) = parse_backend(&pool, &name)?;
    change_by_force(&handle, by, Change::RemoveBackend { pool, backend, force }, force).await
}

async fn set_backend(
    State(handle): State<Handle>,
    by: By,
    Path((pool, name)): Path<(String, String)>,
    query: Force,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Done> {
    let new: view::NewForBackend = parse(body)?;
    let (pool, backend) = parse_backend(&pool, &name)?;
    change_by_force(&handle, by, changes::backend_change(pool, backend, new)?, forced(query)?).await
}

async fn set_state(
    State(handle): State<Handle>,
    by: By,
    Path((pool, name)): Path<(String, String)>,
    query: Force,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Done> {
    let view::NewState { order } = parse(body)?;
    let (pool, backend) = parse_backend(&pool, &name)?;
    let change = Change::SetState { pool, backend, change: order.at(maglev_api::now()) };
    change_by_force(&handle, by, change, forced(query)?).await
}

/// The report may take longer than other answers: the head is sent at once, the body when the report is complete.
async fn check_backend(
    State(handle): State<Handle>,
    Path((pool, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let (pool, backend) = parse_backend(&pool, &name)?;
    let report = handle.ask(|reply| Request::Check { pool, backend, reply }).await?;
    let body = stream::once(async {
        let report = report.await.map_err(std::io::Error::other)?;
        serde_json::to_vec(&report).map_err(std::io::Error::from)
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}

async fn plan(State(handle): State<Handle>, body: Result<Bytes, BytesRejection>) -> Reply<view::Plan> {
    let (change, force) = proposed(parse(body)?)?;
    handle.ask(|reply| Request::Plan { change, force, reply }).await.map(Json).map_err(Refused)
}

async fn plan_reload(State(handle): State<Handle>) -> Reply<view::PlannedReload> {
    handle.ask(|reply| Request::PlanReload { reply }).await.map(Json).map_err(Refused)
}

async fn counters(State(handle): State<Handle>, Extension(caller): Asker) -> Result<Page, Refused> {
    let render = async {
        let counters = handle.ask(|reply| Request::Counters { reply }).await?;
        handle.pages.compute(|| Rendered::json(|| Ok(counters.make()))).await?
    };
    handle.pages.page(Subject::Counters, handle.wanted(caller), render).await.map_err(Refused)
}

/// The query of `GET /v1/flow`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowQuery {
    client: SocketAddr,
    service: SocketAddr,
    protocol: view::Protocol,
}

async fn explain(
    State(handle): State<Handle>,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Reply<view::Explanation> {
    let Query(FlowQuery { client, service, protocol }) =
        query.map_err(|rejection| view::Error::invalid(rejection.body_text()))?;
    if client.is_ipv4() != service.is_ipv4() {
        let line = format!("{client} and {service} are of different address families");
        return Err(view::Error::invalid(line).into());
    }
    let protocol = maglev_model::Protocol::from(protocol);
    check_ports(client, protocol).and_then(|()| check_ports(service, protocol))?;
    let flow = Flow { client, service, protocol };
    handle.ask(|reply| Request::Explain { flow, reply }).await.map(Json).map_err(Refused)
}

/// Whether one end of a flow has a port exactly if its protocol has ports; 0 is none.
fn check_ports(end: SocketAddr, protocol: maglev_model::Protocol) -> Answer<()> {
    let line = match (protocol, end.port()) {
        (maglev_model::Protocol::Any, _) => {
            "protocol: any is not one protocol; allowed: tcp, udp, sctp, udplite, esp, gre".to_owned()
        }
        (protocol, 0) if protocol.has_ports() => {
            format!("{} has no port; {protocol} needs one, such as {}", end.ip(), SocketAddr::new(end.ip(), 443))
        }
        (protocol, 1..) if !protocol.has_ports() => {
            format!("{end} has a port; {protocol} has none: give the address {} alone", end.ip())
        }
        _ => return Ok(()),
    };
    Err(view::Error::invalid(line))
}

async fn reload(State(handle): State<Handle>, by: By, query: Force) -> Reply<view::Reloaded> {
    let force = forced(query)?;
    handle.ask(|reply| Request::Reload { force, by, reply }).await.map(Json).map_err(Refused)
}

async fn node(State(handle): State<Handle>) -> Reply<view::Node> {
    Ok(Json(handle.snapshots.latest().await?.node.clone()))
}

async fn drain_node(
    State(handle): State<Handle>,
    By { caller, why }: By,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Node> {
    let view::NewDrain { reason, last_node } = parse(body)?;
    let reason = reason
        .as_deref()
        .map(maglev_model::parse_reason)
        .transpose()
        .map_err(|bad| view::Error::invalid(format!("reason: {bad}")))?
        .or(why);
    let last_node = last_node || handle.snapshots.latest().await?.node.last_node;
    let order = node_drain::Order { since: maglev_api::now(), reason, last_node };
    handle.ask(|reply| Request::DrainNode { order, caller, reply }).await?;
    node(State(handle)).await
}

async fn undrain_node(State(handle): State<Handle>, Extension(caller): Extension<Caller>) -> Reply<view::Node> {
    handle.ask(|reply| Request::UndrainNode { caller, reply }).await?;
    node(State(handle)).await
}

async fn stop_node(
    State(handle): State<Handle>,
    Extension(caller): Asker,
    body: Result<Bytes, BytesRejection>,
) -> Reply<view::Done> {
    let order = parse(body)?;
    Ok(Json(handle.ask(|reply| Request::StopNode { order, caller, reply }).await.map(|()| view::Done {})?))
}

async fn bgp_neighbors(State(handle): State<Handle>) -> Json<view::BgpNeighbors> {
    Json(handle.bgp.neighbors())
}

async fn bgp_routes(State(handle): State<Handle>) -> Json<view::BgpRoutes> {
    Json(handle.bgp.routes())
}

async fn reset_neighbor(
    State(handle): State<Handle>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Reply<view::Done> {
    handle.bgp.reset(&name, caller).await?;
    Ok(Json(view::Done {}))
}

async fn change(handle: &Handle, by: By, change: Change) -> Reply<view::Done> {
    change_by_force(handle, by, change, false).await
}

/// A change that may take something out of service.
async fn change_by_force(handle: &Handle, by: By, change: Change, force: bool) -> Reply<view::Done> {
    handle.ask(|reply| Request::Change { change, force, by, reply }).await?;
    Ok(Json(view::Done {}))
}

fn find_pool<'a>(status: &'a view::Status, name: &Name) -> Result<&'a view::PoolSummary, Refusal> {
    let found = status.pools.iter().find(|pool| pool.name == name.as_str());
    found.ok_or_else(|| Refusal::unknown("pool", name, status.pools.iter().map(|pool| pool.name.as_str())))
}

pub(super) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Answer<T> {
    let body = body.map_err(|rejection| view::Error::invalid(rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| view::Error::invalid(format!("request body: {error}")))
}
