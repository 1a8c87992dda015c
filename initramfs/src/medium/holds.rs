//! What keeps a medium in use: mounts, loop devices and mappings, as values that have a text, so that whoever copies the root
//! into memory in the background can let go of them later, in another process.

use crate::{device_mapper, loop_device, mounts};
use anyhow::Result;
use std::fmt;

/// Something that must be let go of before the medium may be removed, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A file system that is mounted here.
    Mount(String),
    /// This loop device.
    Loop(String),
    /// The device-mapper device of this name.
    Mapper(String),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(place) => write!(f, "mount:{place}"),
            Self::Loop(device) => write!(f, "loop:{device}"),
            Self::Mapper(name) => write!(f, "mapper:{name}"),
        }
    }
}

impl Hold {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        let value = value.to_owned();
        match kind {
            "mount" => Some(Self::Mount(value)),
            "loop" => Some(Self::Loop(value)),
            "mapper" => Some(Self::Mapper(value)),
            _ => None,
        }
    }

    /// Lets go of it.
    ///
    /// # Errors
    /// It is still in use.
    pub fn release(&self) -> Result<()> {
        match self {
            Self::Mount(place) => mounts::release(place),
            Self::Loop(device) => loop_device::detach(device),
            Self::Mapper(name) => device_mapper::remove(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_survives_its_text() {
        let holds = [
            Hold::Mount("/run/sino/medium".into()),
            Hold::Loop("/dev/loop1".into()),
            Hold::Mapper("sino-carrier".into()),
        ];
        for hold in holds {
            assert_eq!(Hold::parse(&hold.to_string()), Some(hold));
        }
        assert_eq!(Hold::parse("x:y"), None);
    }
}
