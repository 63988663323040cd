//! Captures of packets: while there is one, a program that captures runs in the place of the one that only forwards, over the same
//! maps; the links change from one to the other without a gap. It must not know names, nor the use of a captured packet.
//!
//! ```text
//!  capture ──▶ CAPTURE_FILTERS ──▶ program ──▶ CAPTURED (ring) ──▶ thread ──▶ a sink for each capture
//! ```

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use ipnet::IpNet;
use maglev_common::backend::MemberId;
use maglev_common::capture::{CAPTURES, CaptureState, Filter, Filters, MOST_KEPT, Record};
use maglev_common::maps as names;
use maglev_common::table::PoolIndex;
use maglev_common::vip::VipId;
use nix::poll::{PollFd, PollFlags, poll};

use super::error::DataplaneError;
use super::maps;
use super::object::{self, Loaded};
use super::shared::Mapped;
use super::sizes::Sizes;
use super::{Dataplane, Settings};

mod filter;
mod packet;

use filter::{aim, write};

pub use packet::{Captured, CapturedDecision};

/// Milliseconds for which the thread waits for packets before it looks whether it is to end.
const PATIENCE: u8 = 100;

/// The packets that a capture takes: those of which all conditions hold.
#[derive(Clone, Debug)]
pub struct CaptureFilter {
    /// By VIP, pool and backend; `None`: one of them does not exist now, so that no packet is taken.
    pub target: Option<CaptureTarget>,
    /// A bit for each [`maglev_common::counters::Counter`] whose packets are taken.
    pub counters: u64,
    /// The source's address is of this prefix.
    pub client: Option<IpNet>,
    /// The source's or the destination's port.
    pub port: Option<u16>,
    /// TCP flags that decide, and their values: those of a TCP header's fourteenth byte.
    pub tcp_flags: (u8, u8),
    /// One in so many packets, by chance: at least 1.
    pub one_in: u32,
    /// Bytes that are kept of a packet: at most [`MOST_KEPT`].
    pub kept: u32,
    /// Packets in a second on each CPU.
    pub rate: u32,
    /// How long the capture takes packets: it ends then even if nothing ends it.
    pub lasts: Duration,
}

/// The VIP, pool and backend of a capture, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureTarget {
    /// The VIP, and its address, by which packets without a decision are its own.
    pub vip: Option<(VipId, IpNet)>,
    /// The pool.
    pub pool: Option<PoolIndex>,
    /// The backend.
    pub member: Option<MemberId>,
}

/// What a capture took, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureTotals {
    /// Packets that fulfilled the conditions.
    pub matched: u64,
    /// Of them, those beyond the rate.
    pub limited: u64,
    /// Of them, those for which there was no room.
    pub lost: u64,
}

/// A running capture by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureId {
    number: usize,
    /// How many captures began before.
    began: u64,
}

/// Receives each packet of a capture, on a thread of its own; false if it had no room for it.
pub type Sink = Box<dyn FnMut(Captured) -> bool + Send>;

/// All that a program that captures takes from a data plane: to be loaded elsewhere, since the verifier takes its time.
#[derive(Debug)]
pub struct CaptureSource {
    settings: Settings,
    sizes: Sizes,
    set: String,
    maps: Vec<(&'static str, PathBuf)>,
}

/// A program that captures, loaded, over the maps of a set.
#[derive(Debug)]
pub struct CaptureProgram {
    loaded: Loaded,
    set: String,
    cpus: u32,
}

impl CaptureSource {
    /// Loads the program.
    ///
    /// # Errors
    /// The kernel refuses it, or the maps are gone.
    pub fn load(self) -> Result<CaptureProgram, DataplaneError> {
        let Self { settings, sizes, set, maps } = self;
        Ok(CaptureProgram { loaded: Loaded::capturing(&settings, &sizes, &maps)?, set, cpus: sizes.cpus })
    }
}

/// One capture for the thread.
struct Taker {
    sink: Sink,
    kept: usize,
    /// Nanoseconds of the monotonic clock: packets from before are those of a capture that had the same number.
    since: u64,
    /// Packets that the sink had no room for.
    lost: Arc<AtomicU64>,
}

/// A change for the thread, which takes it over before it hands on the next packet. No lock is shared with it: a reader that is slow must
/// not delay plans.
enum Change {
    Begin(usize, Taker),
    End(usize),
}

/// The program that captures while it runs, and its captures.
pub(super) struct Capturing {
    pub(super) loaded: Loaded,
    filters: Mapped<Filters>,
    state: Mapped<CaptureState>,
    /// To the thread, which ends once this is dropped.
    changes: Sender<Change>,
    running: [Option<Run>; CAPTURES],
}

/// A capture that runs.
#[derive(Debug)]
struct Run {
    /// How many had begun before.
    began: u64,
    lost: Arc<AtomicU64>,
}

/// How many captures have begun in this process: no two have the same [`CaptureId`], whatever data planes they run on.
static BEGAN: AtomicU64 = AtomicU64::new(0);

impl std::fmt::Debug for Capturing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capturing").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Capturing {
    fn start(program: CaptureProgram) -> Result<Self, DataplaneError> {
        let CaptureProgram { mut loaded, set: _, cpus } = program;
        let filters = maps::open(&loaded, names::CAPTURE_FILTERS, 1)?;
        let state = maps::open(&loaded, names::CAPTURE_STATE, cpus)?;
        let ring = loaded.take_ring(names::CAPTURED)?;
        let (changes, received) = mpsc::channel();
        let thread = std::thread::Builder::new().name("capture".into()).spawn(move || read(ring, &received));
        thread.map_err(|error| DataplaneError::Load(format!("cannot start a thread: {error}")))?;
        Ok(Self { loaded, filters, state, changes, running: <_>::default() })
    }

    fn filter(&self, number: usize) -> &Filter {
        &self.filters.first().filters[number]
    }

    /// Begins a capture; refused if as many run as may.
    fn begin(&mut self, wanted: &CaptureFilter, sink: Sink) -> Result<CaptureId, DataplaneError> {
        let Some(number) = self.running.iter().position(Option::is_none) else {
            return Err(DataplaneError::Setting(format!("{CAPTURES} captures run already: end one first")));
        };
        let now = packet::monotonic();
        let until = now.saturating_add(wanted.lasts);
        let kept = wanted.kept.min(MOST_KEPT);
        for counts in self.state.values().iter().map(|state| &state.counts[number]) {
            [&counts.matched, &counts.limited, &counts.lost].iter().for_each(|word| word.set(0));
        }
        let lost = Arc::<AtomicU64>::default();
        let taker = Taker { sink, kept: kept as usize, since: nanoseconds(now), lost: Arc::clone(&lost) };
        // It may have ended for an error, which it logged; then no packet comes.
        let _ = self.changes.send(Change::Begin(number, taker));
        write(self.filter(number), wanted, kept);
        aim(self.filter(number), wanted.target);
        // Last: a filter of which this is 0 takes nothing.
        self.filter(number).until.set(nanoseconds(until));
        let began = BEGAN.fetch_add(1, Ordering::Relaxed);
        self.running[number] = Some(Run { began, lost });
        self.note_filters();
        Ok(CaptureId { number, began })
    }

    /// Publishes which filters are used, and the outcomes that they take.
    fn note_filters(&self) {
        let Filters { count, counters, only, filters } = self.filters.first();
        let used = filters.iter().filter(|filter| filter.until.get() != 0);
        let one = used.clone().count() == 1;
        // While these change, a filter more is asked than need be.
        only.set(0);
        counters.set(used.fold(0, |all, filter| all | filter.counters.get()));
        count.set(self.used() as u64);
        only.set(if one { self.used() as u64 } else { 0 });
    }

    /// One more than the highest number in use.
    fn used(&self) -> usize {
        self.running.iter().rposition(Option::is_some).map_or(0, |last| last + 1)
    }

    fn run(&self, id: CaptureId) -> Option<&Run> {
        self.running[id.number].as_ref().filter(|run| run.began == id.began)
    }

    fn is_running(&self, id: CaptureId) -> bool {
        self.run(id).is_some()
    }

    fn totals(&self, id: CaptureId) -> CaptureTotals {
        let lost = self.run(id).map_or(0, |run| run.lost.load(Ordering::Relaxed));
        let counts = self.state.values().iter().map(|state| &state.counts[id.number]);
        counts.fold(CaptureTotals { lost, ..CaptureTotals::default() }, |sum, counts| CaptureTotals {
            matched: sum.matched + counts.matched.get(),
            limited: sum.limited + counts.limited.get(),
            lost: sum.lost + counts.lost.get(),
        })
    }

    /// Ends a capture; returns whether it was the last one.
    fn end(&mut self, id: CaptureId) -> bool {
        self.filter(id.number).until.set(0);
        self.running[id.number] = None;
        self.note_filters();
        let _ = self.changes.send(Change::End(id.number));
        self.used() == 0
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Gives a program that captures one filter, without a reader.
#[cfg(feature = "bench")]
pub(super) fn take(loaded: &Loaded, wanted: &CaptureFilter) -> Result<(), DataplaneError> {
    let filters: Mapped<Filters> = maps::open(loaded, names::CAPTURE_FILTERS, 1)?;
    let filter = &filters.first().filters[0];
    write(filter, wanted, wanted.kept);
    aim(filter, wanted.target);
    filter.until.set(u64::MAX);
    filters.first().counters.set(wanted.counters);
    filters.first().only.set(1);
    filters.first().count.set(1);
    Ok(())
}

/// Reads the ring until the captures end.
fn read(mut ring: RingBuf<MapData>, changes: &Receiver<Change>) {
    let mut takers: [Option<Taker>; CAPTURES] = <_>::default();
    while change(&mut takers, changes) {
        let ready = poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], PATIENCE);
        if let Err(errno) = ready
            && errno != nix::errno::Errno::EINTR
        {
            tracing::error!(error = %io::Error::from(errno), "cannot read captured packets");
            return;
        }
        let epoch = packet::epoch();
        while let Some(bytes) = ring.next() {
            if !change(&mut takers, changes) {
                return;
            }
            if let Some((record, before, after)) = Record::split(&bytes)
                && let Some(captured) = Captured::read(&record, before, after, epoch)
            {
                hand_on(&mut takers, &record, &captured);
            }
        }
    }
}

/// Takes over what has begun and ended; returns whether more may come.
fn change(takers: &mut [Option<Taker>; CAPTURES], changes: &Receiver<Change>) -> bool {
    loop {
        match changes.try_recv() {
            Ok(Change::Begin(number, taker)) => takers[number] = Some(taker),
            Ok(Change::End(number)) => takers[number] = None,
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

/// Hands a packet on to the captures that took it.
fn hand_on(takers: &mut [Option<Taker>; CAPTURES], record: &Record, captured: &Captured) {
    for (number, taker) in takers.iter_mut().enumerate() {
        let is_taken = |taker: &&mut Taker| record.captures >> number & 1 != 0 && record.time >= taker.since;
        if let Some(Taker { sink, kept, since: _, lost }) = taker.as_mut().filter(is_taken)
            && !sink(captured.cut(*kept))
        {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Dataplane {
    /// What a program that captures is loaded from; `None` if one runs already.
    ///
    /// # Errors
    /// Nothing is pinned.
    pub fn capture_source(&self) -> Result<Option<CaptureSource>, DataplaneError> {
        if self.capturing.is_some() {
            return Ok(None);
        }
        let Some(left) = &self.left else {
            let reason = "`dataplane.pin` is off: a capture needs maps that are pinned";
            return Err(DataplaneError::Setting(reason.to_owned()));
        };
        let maps = object::LEFT.into_iter().map(|name| (name, left.pins.part(&left.set, name))).collect();
        let (settings, sizes, set) = (self.settings.clone(), self.maps.sizes, left.set.clone());
        Ok(Some(CaptureSource { settings, sizes, set, maps }))
    }

    /// Begins a capture. `program` is needed by the first one; then it takes the place of the program that only forwards.
    ///
    /// # Errors
    /// As many captures run as may; or the program is of another data plane, or cannot be attached: nothing has changed then.
    pub fn capture(
        &mut self,
        program: Option<CaptureProgram>,
        filter: &CaptureFilter,
        sink: Sink,
    ) -> Result<CaptureId, DataplaneError> {
        if let Some(capturing) = &mut self.capturing {
            return capturing.begin(filter, sink);
        }
        let changed = || DataplaneError::Setting("the data plane has changed meanwhile: try again".to_owned());
        let (program, left) = program.zip(self.left.as_ref()).ok_or_else(changed)?;
        if program.set != left.set {
            return Err(changed());
        }
        let mut capturing = Capturing::start(program)?;
        let id = capturing.begin(filter, sink)?;
        let runnable = capturing.loaded.program(names::CAPTURED_PROGRAM)?;
        // First: a daemon that finds this program on an interface knows its set by it.
        left.pins.pin_captured(&left.set, runnable.fd)?;
        if let Err(error) = self.attached.replace(runnable) {
            self.forward_only();
            return Err(error);
        }
        self.capturing = Some(capturing);
        tracing::info!("capturing packets: the XDP program that captures runs");
        Ok(id)
    }

    /// Gives a capture other numbers for its VIP, pool and backend. One that has ended has none.
    pub fn aim_capture(&self, id: CaptureId, target: Option<CaptureTarget>) {
        if let Some(capturing) = self.capturing.as_ref().filter(|capturing| capturing.is_running(id)) {
            aim(capturing.filter(id.number), target);
        }
    }

    /// What a capture took so far; `None` if it has ended.
    pub fn capture_totals(&self, id: CaptureId) -> Option<CaptureTotals> {
        self.capturing.as_ref().filter(|capturing| capturing.is_running(id)).map(|capturing| capturing.totals(id))
    }

    /// Ends a capture; after the last one, the program that only forwards runs again.
    pub fn end_capture(&mut self, id: CaptureId) {
        let capturing = self.capturing.as_mut().filter(|capturing| capturing.is_running(id));
        if capturing.is_some_and(|capturing| capturing.end(id)) {
            self.end_captures();
        }
    }

    /// Ends all captures.
    pub(super) fn end_captures(&mut self) {
        if let Some(capturing) = self.capturing.take() {
            self.forward_only();
            drop(capturing);
            tracing::info!("no packets are captured any more: the XDP program that only forwards runs");
        }
    }

    /// Puts the program that only forwards into its place again.
    fn forward_only(&mut self) {
        let replaced = self.ebpf.program(self.program).and_then(|program| self.attached.replace(program));
        if let Err(error) = replaced {
            tracing::error!(%error, "the XDP program that captures stays: it forwards as the other one does");
            return;
        }
        if let Some(left) = &self.left {
            left.pins.unpin_captured(&left.set);
        }
    }

    /// Runs the program that captures on interfaces that the other one was attached to meanwhile.
    pub(super) fn capture_everywhere(&mut self) {
        if let Some(capturing) = &mut self.capturing {
            let program = capturing.loaded.program(names::CAPTURED_PROGRAM);
            if let Err(error) = program.and_then(|program| self.attached.replace(program)) {
                tracing::warn!(%error, "packets of one interface are not captured");
            }
        }
    }
}
