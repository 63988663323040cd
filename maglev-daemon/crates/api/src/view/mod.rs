//! The answers of the API, one type each: the daemon serialises them, the command line reads them back and renders
//! them as text or prints them as JSON. It must not know the code of either side.

mod bgp;
mod capture;
mod decap;
mod doctor;
mod error;
mod event;
mod file;
mod health;
mod history;
mod node;
mod plan;
mod services;
mod settings;
mod status;
mod traffic;
mod transition;
mod value;

pub use bgp::{BgpNeighbor, BgpNeighbors, BgpRoute, BgpRoutes, BgpSummary};
pub use capture::{CaptureCounts, CaptureEnded, CapturedPacket, NewCapture, from_hex, to_hex};
pub use decap::{DecapCounters, DecapInterface, DecapReloaded, DecapStatus};
pub use doctor::{Finding, FindingLevel, Findings};
pub use error::{Error, ErrorKind};
pub use event::{DataPlaneStage, Event, Events, Fields, Level, What};
pub use file::{Applied, PlannedServices, ServicesFile};
pub use health::{CheckCounts, CheckReport, CheckShortage, CheckedTarget, Health, HealthClock, HealthState, LastCheck};
pub use health::{NewHealth, PoolHealth};
pub use history::{
    DiffLine, History, NewRollback, PlannedRollback, Revision, RevisionContent, RevisionDiff, RolledBack,
};
pub use maglev_model::node_drain::Stage;
pub use node::{NewDrain, NewStop, Node, NodeDrain, PassedStage, Receiving};
pub use plan::{Plan, PlanShare, Proposal};
pub use services::{Backend, BackendState, Done, NextHop, Pool, PoolSummary, Vip, VipHealth};
pub use services::{NewBackend, NewForBackend, NewForVip, NewPool, NewState, NewVip, StateOrder, Vlan};
pub use settings::{Encap, NewSettings, NewTransition, Tracking, Transition, UdpPolicy, Unserved};
pub use status::{ChangeCounts, Changes, NeighborChange, PlannedReload, Reloaded, SessionChange};
pub use status::{FlowTable, Forwarding, Interface, LastReload, MapMemory, Memory, OutOfSync, Status};
pub use traffic::{BackendTraffic, Counter, Counters, Explanation, InterfaceCounter, VipTraffic};
pub use transition::InTransition;
pub use value::{Address, Port, Protocol};
