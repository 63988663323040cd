//! The outcomes of requests: one each, and the summary of many.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::timeout;

/// How long a request may take before it counts as failed. Nothing in the lab takes a hundredth of it, save a lost
/// packet that TCP sends again.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When the client began to connect.
    pub began: Instant,
    /// When it had the answer, or gave up.
    pub ended: Instant,
    /// Where it was sent.
    pub target: SocketAddr,
    /// The client's end of the connection, once there was one.
    pub local: Option<SocketAddr>,
    /// How often it was refused a connection and tried again from another port.
    pub refused: u32,
    /// The name of the backend that answered, or why there was no answer.
    pub answer: Result<String, String>,
}

/// The outcomes of many requests.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(pub Vec<Outcome>);

impl Outcome {
    /// Runs one request to its end, at most as long as [`PATIENCE`]; `ask` notes the client's end in its argument.
    pub(super) async fn run<A>(target: SocketAddr, ask: A) -> Self
    where
        A: AsyncFnOnce(&mut Option<SocketAddr>) -> Result<String>,
    {
        let began = Instant::now();
        let mut local = None;
        let answer = match timeout(PATIENCE, ask(&mut local)).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        Self { began, ended: Instant::now(), target, local, refused: 0, answer }
    }
}

impl Outcomes {
    /// How many requests each backend answered.
    pub fn by_backend(&self) -> BTreeMap<&str, u64> {
        let mut answers = BTreeMap::new();
        for name in self.0.iter().filter_map(|outcome| outcome.answer.as_deref().ok()) {
            *answers.entry(name).or_insert(0) += 1;
        }
        answers
    }

    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.0.iter().filter(|outcome| outcome.answer.is_err())
    }

    /// Fails if a request failed, and says why for the first few.
    ///
    /// # Errors
    /// If any request failed.
    pub fn all_answered(&self) -> Result<()> {
        let reasons: Vec<String> = self.failed().take(5).map(ToString::to_string).collect();
        let failed = self.failed().count();
        ensure!(failed == 0, "{failed} of {} requests failed: {}", self.0.len(), reasons.join("; "));
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "{local} -> {}: ", self.target)?,
            None => write!(f, "-> {}: ", self.target)?,
        }
        match &self.answer {
            Ok(name) => write!(f, "answered by {name}"),
            Err(reason) => f.write_str(reason),
        }
    }
}
