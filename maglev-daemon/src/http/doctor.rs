//! `GET /v1/doctor`: an examination of this node, one at a time, off the event loop. It must not know what is examined.

use axum::Json;
use axum::extract::State;
use maglev_api::view;
use tokio::sync::Mutex;

use super::{Handle, Reading, Refused};
use crate::doctor::{self, Given};

/// An examination reads drivers and sends probes: a second one waits for its end.
static UNDER_WAY: Mutex<()> = Mutex::const_new(());

/// The findings about this node.
pub(super) async fn examine(State(handle): State<Handle>) -> Result<Json<view::Findings>, Refused> {
    let Some(path) = handle.config.clone() else {
        return Err(Refused(view::Error::failed("this daemon has no configuration file")));
    };
    let _turn = UNDER_WAY.lock().await;
    let status = handle.compute(Reading::status).await.map_err(Refused)?;
    let sessions = handle.bgp.neighbors();
    let work = move || {
        let conflicts = status.vips.iter().filter_map(|vip| Some((vip.name.clone(), vip.error.clone()?))).collect();
        let given = Given { conflicts: Some(Ok(conflicts)), rehearsal: None, daemon: Some((status, sessions)) };
        doctor::node(&path, &maglev_store::load(&path), given)
    };
    let findings = tokio::task::spawn_blocking(work).await;
    findings.map(Json).map_err(|error| Refused(view::Error::failed(format!("the examination failed: {error}"))))
}
