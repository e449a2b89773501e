//! The calls that are under way.

use std::ops::{Index, IndexMut};

use callsign::load::{BriefReport, CallGuard};

use super::{
    probing::Asking,
    queue::{NEVER, Nanos},
    scenario::Code,
};

/// Where a call's present attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// At its client, which has no server for it yet.
    Pending,
    /// On its way to a server.
    Out,
    /// It waits at its server.
    Waiting,
    /// Its server works on it.
    Running,
    /// Its answer is on the way back.
    Back,
    /// It gave up its place at the server, which has yet to notice.
    Gone,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// Tells it from others that had its place before.
    pub number: u64,
    /// When it began.
    pub begun: Nanos,
    /// Seconds that a worker of speed 1 takes for it.
    pub work: f64,
    /// Whose it is.
    pub client: u32,
    /// Where its present attempt goes; [`NOWHERE`] for the queue that all servers share.
    pub server: u32,
    /// Where its present attempt is.
    pub stage: Stage,
    /// Whether it has not ended for its caller.
    pub open: bool,
    /// Whether it counts.
    pub measured: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// What its server answers; none for OK.
    pub answer: Option<Code>,
    /// What its server says of its load.
    pub report: Option<BriefReport>,
    /// When its server took it in, and how many it had then, this one among them.
    pub came: Nanos,
    /// See `came`.
    pub found: u32,
    /// What it waits for before it is sent.
    pub asking: Option<Asking>,
    /// Counts it in at its client's load cell.
    pub guard: Option<CallGuard>,
    /// The servers that failed it.
    pub tried: Vec<u32>,
    /// Of one that a worker has: work that was left at `since`.
    pub left: f64,
    /// See `left`.
    pub since: Nanos,
    /// When its worker will be done, as things stand; or its client's patience ends.
    pub due: Nanos,
    /// Its position among those that its server works on.
    pub place: u32,
}

/// No server.
pub const NOWHERE: u32 = u32::MAX;

/// All calls that somebody still holds: the caller, a server, or the network.
#[derive(Debug, Default)]
pub struct Calls {
    all: Vec<Call>,
    free: Vec<u32>,
    begun: u64,
}

impl Calls {
    /// A new call; its position.
    pub fn begin(&mut self, now: Nanos, client: u32, work: f64, measured: bool) -> u32 {
        self.begun += 1;
        let call = Call {
            number: self.begun,
            begun: now,
            work,
            client,
            server: NOWHERE,
            stage: Stage::Pending,
            open: true,
            measured,
            attempts: 0,
            answer: None,
            report: None,
            came: 0,
            found: 0,
            asking: None,
            guard: None,
            tried: Vec::new(),
            left: 0.0,
            since: 0,
            due: NEVER,
            place: 0,
        };
        if let Some(at) = self.free.pop() {
            self.all[at as usize] = call;
            return at;
        }
        self.all.push(call);
        (self.all.len() - 1) as u32
    }

    /// Nobody holds this one any more.
    pub fn free(&mut self, at: u32) {
        debug_assert!(!self[at].open, "the caller still waits");
        self[at].number = 0;
        self.free.push(at);
    }

    /// Calls that began.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }
}

impl Index<u32> for Calls {
    type Output = Call;

    fn index(&self, at: u32) -> &Call {
        &self.all[at as usize]
    }
}

impl IndexMut<u32> for Calls {
    fn index_mut(&mut self, at: u32) -> &mut Call {
        &mut self.all[at as usize]
    }
}
