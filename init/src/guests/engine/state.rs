//! How a guest can be.

use serde::{Deserialize, Serialize};

/// How a guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// It will start.
    Waiting {
        /// When these are ready; none: when it is its turn.
        on: Vec<String>,
    },
    /// It will start, after its delay.
    Delayed {
        /// Then.
        until_us: u64,
    },
    /// xl starts it.
    Starting {
        /// The number of the try; 0: its saved state is resumed.
        attempt: u32,
    },
    /// It runs, and is not ready yet.
    Created {
        /// Its domain.
        domid: u32,
    },
    /// It runs and is not ready, though it should be.
    NotReady {
        /// Its domain.
        domid: u32,
        /// What is missing.
        why: String,
    },
    /// It runs and is ready.
    Ready {
        /// Its domain.
        domid: u32,
    },
    /// It could not be started, or not be stopped.
    Failed {
        /// Why.
        why: String,
    },
    /// It is not started because of another, and will be when that is ready.
    Held {
        /// The other.
        by: String,
    },
    /// It is not started.
    Refused {
        /// Why.
        why: String,
    },
    /// It is being stopped.
    Stopping {
        /// How.
        how: How,
    },
    /// It does not run, and nobody wants it to.
    Stopped {
        /// How that came.
        how: String,
    },
    /// It crashed, and is not started again.
    Crashed {
        /// How.
        why: String,
    },
    /// It will be started again.
    BackingOff {
        /// Then.
        until_us: u64,
        /// What happened.
        why: String,
    },
    /// Its saved state will be resumed when it is started.
    Saved,
}

/// How a guest is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Others come first.
    Queued,
    /// When xl has created it.
    AfterCreate,
    /// It was asked to shut down.
    Shutdown,
    /// Its memory is being saved.
    Save,
    /// It is being destroyed.
    Destroy,
}

impl State {
    /// Whether it stays like this unless something happens from outside.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(
            self,
            Self::Waiting { .. }
                | Self::Delayed { .. }
                | Self::Starting { .. }
                | Self::Created { .. }
                | Self::Stopping { .. }
                | Self::BackingOff { .. }
        )
    }

    /// Whether its domain runs and is wanted.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Created { .. } | Self::NotReady { .. } | Self::Ready { .. })
    }
}
