//! Whether the flow tables have room for the pinned flows. It must not know how flows are pinned.

use maglev_api::view;

use super::Client;

/// A warning if the flows that are pinned, or so many others that a change would pin, do not fit well into the flow tables.
/// None if the status cannot be read.
pub(super) fn warning(client: &Client, others: u64) -> Option<String> {
    let status = client.get::<view::Status>("/v1/status").ok()?;
    let warning = status.flow_table.warning(status.pinned_flows().max(others))?;
    Some(format!("maglev: warning: {warning}"))
}
