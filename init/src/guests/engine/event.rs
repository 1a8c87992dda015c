//! What the engine is told, and what it wants done.

use crate::config::origins::clean;
use crate::guests::ready::Ready;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Start the guests.
    StartAll {
        /// Which.
        filter: Filter,
    },
    /// Stop all guests; whatever is left at that time is given up.
    StopAll {
        /// When all of it must be over.
        until_us: u64,
    },
    /// Start this guest. It does not wait for its delay and is not held by guests that failed, and a refusal no longer counts:
    /// look before whether it can start ([`Event::Refuse`]).
    Start {
        /// The guest.
        name: String,
    },
    /// Stop this guest.
    Stop {
        /// The guest.
        name: String,
    },
    /// Stop this guest and start it again; if it does not run, start it.
    Restart {
        /// The guest.
        name: String,
    },
    /// This guest must not be started. Nothing happens to one that runs.
    Refuse {
        /// The guest.
        name: String,
        /// Why.
        why: String,
    },
    /// `xl create` or `xl restore` of this guest has ended.
    Created {
        /// The guest.
        name: String,
        /// The number of its domain. A domain of that name that was there already is a success, too.
        result: Result<u32, XlError>,
    },
    /// A probe has ended.
    Probed {
        /// The guest.
        name: String,
        /// The domain that was probed.
        domid: u32,
        /// Whether it is ready; else why not.
        result: Result<(), String>,
    },
    /// A domain is gone.
    Gone {
        /// The guest.
        name: String,
        /// The domain.
        domid: u32,
        /// Why.
        reason: Reason,
    },
    /// A domain has shut down, and stays: as its file says, or because nobody takes it away.
    Remains {
        /// The guest.
        name: String,
        /// The domain.
        domid: u32,
        /// For what it has shut down.
        reason: Reason,
    },
    /// A domain runs that the engine did not start. Not for domains that are still being built.
    Appeared {
        /// Its name.
        name: String,
        /// Its number.
        domid: u32,
    },
    /// `xl shutdown` has ended: the guest was asked.
    ShutdownEnded {
        /// The guest.
        name: String,
        /// How.
        result: Result<(), XlError>,
    },
    /// `xl save` has ended.
    SaveEnded {
        /// The guest.
        name: String,
        /// How.
        result: Result<(), XlError>,
    },
    /// `xl destroy` has ended. That there was no such domain is a success.
    DestroyEnded {
        /// The guest.
        name: String,
        /// How.
        result: Result<(), XlError>,
    },
    /// The Xen daemons answer.
    DaemonsUp,
    /// The Xen daemons do not answer: nothing is started until they do.
    DaemonsLost,
}

/// Which guests are started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Those that start by themselves.
    #[default]
    All,
    /// None.
    Off,
    /// These, whether they start by themselves or not.
    Only(Vec<String>),
}

impl Filter {
    /// Whether it wants the guest of this name, which starts by itself or not.
    #[must_use]
    pub fn wants(&self, name: &str, autostart: bool) -> bool {
        match self {
            Self::All => autostart,
            Self::Off => false,
            Self::Only(names) => names.iter().any(|wanted| wanted == name),
        }
    }
}

/// Why xl did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XlError {
    /// What it said.
    Failed(String),
    /// What it said, and trying again would not help.
    Final(String),
    /// It did not end in time, and was ended.
    TimedOut,
}

impl fmt::Display for XlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) | Self::Final(text) => f.write_str(&clean(text, 500)),
            Self::TimedOut => f.write_str("xl did not end in time"),
        }
    }
}

/// Why a domain is gone. Source: Xen, `public/sched.h`, `SHUTDOWN_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The guest powered itself off.
    PowerOff,
    /// The guest wants to be started anew.
    Reboot,
    /// So it does, and xl has not done it, because the guest's file says so (`on_reboot`).
    NoReboot,
    /// It was suspended, as by `xl save`.
    Suspend,
    /// It crashed.
    Crash,
    /// Somebody destroyed it.
    Destroyed,
    /// Nobody saw it.
    Unknown,
}

/// A domain that there is, without dom0 and without device models' domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its number.
    pub domid: u32,
    /// Whether it is paused; one that is still being built is.
    pub paused: bool,
}

/// Something to do, in this order.
///
/// `Create`, `Restore`, `Shutdown`, `Save` and `Destroy` are each answered by their event, once, however long it takes; the
/// caller gives each a deadline. A new one of these for a guest replaces the one that is under way: end that xl before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `xl create`, after a saved state that may be there was put aside; answered by [`Event::Created`].
    Create {
        /// The guest.
        name: String,
        /// The number of this try, from 1.
        attempt: u32,
    },
    /// `xl restore` of its saved state; answered by [`Event::Created`]. That there is none, or none that is complete, is a failure.
    Restore {
        /// The guest.
        name: String,
    },
    /// Its saved state, if there is one, must never be resumed again, because its disks have changed since or it could not be
    /// resumed: put it aside.
    Discard {
        /// The guest.
        name: String,
    },
    /// Find out when it is ready, again and again until the deadline; answered by [`Event::Probed`]. It replaces a probe of this
    /// guest that is under way.
    Probe {
        /// The guest.
        name: String,
        /// Its domain.
        domid: u32,
        /// What ready means.
        ready: Ready,
        /// Until when.
        deadline_us: u64,
    },
    /// The probe of this guest, if there is one, is no longer wanted.
    EndProbe {
        /// The guest.
        name: String,
    },
    /// `xl shutdown`, by ACPI if it has no drivers of Xen's; answered by [`Event::ShutdownEnded`] when it was asked, and by
    /// [`Event::Gone`] when it is down.
    Shutdown {
        /// The guest.
        name: String,
    },
    /// `xl save`; answered by [`Event::SaveEnded`].
    Save {
        /// The guest.
        name: String,
    },
    /// `xl destroy`; answered by [`Event::DestroyEnded`].
    Destroy {
        /// The guest.
        name: String,
    },
    /// Something for people, without control characters.
    Note {
        /// What.
        text: String,
        /// Whether it is a warning.
        warning: bool,
    },
}
