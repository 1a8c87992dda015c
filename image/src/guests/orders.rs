//! What a guest of ours is told on its kernel's command line: as words, and read back from `/proc/cmdline`.
//!
//! Each word begins with `guest.`, which the kernel takes for a parameter of a module that is not there and ignores.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::net::Ipv4Addr;

/// What a guest is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Its name; it says everything under it.
    pub name: String,
    /// The address of its first network card and the length of the network's prefix. Without one it uses no network.
    pub address: Option<(Ipv4Addr, u8)>,
    /// The TCP port on which it answers.
    pub port: Option<u16>,
    /// Whether it has a disk, on which it keeps a record of what happens to it.
    pub disk: bool,
    /// How many seconds it waits before it is ready.
    pub delay: u64,
    /// After how many seconds it crashes, each time.
    pub crash_after: Option<u64>,
    /// Whether it ignores that it is asked to shut down.
    pub ignore_shutdown: bool,
}

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest.name={}", self.name)?;
        if let Some((address, prefix)) = self.address {
            write!(f, " guest.ip={address}/{prefix}")?;
        }
        if let Some(port) = self.port {
            write!(f, " guest.port={port}")?;
        }
        if self.delay > 0 {
            write!(f, " guest.delay={}", self.delay)?;
        }
        if let Some(seconds) = self.crash_after {
            write!(f, " guest.crash-after={seconds}")?;
        }
        for (word, wanted) in [("disk", self.disk), ("ignore-shutdown", self.ignore_shutdown)] {
            if wanted {
                write!(f, " guest.{word}")?;
            }
        }
        Ok(())
    }
}

impl Orders {
    /// Reads a kernel's command line.
    ///
    /// # Errors
    /// A `guest.` word that means nothing, or the name is missing.
    pub fn parse(command_line: &str) -> Result<Self> {
        let mut orders = Self::default();
        for word in command_line.split_whitespace() {
            if let Some(order) = word.strip_prefix("guest.") {
                orders.take(order).with_context(|| format!("the word {word}"))?;
            }
        }
        if orders.name.is_empty() {
            bail!("guest.name= is missing");
        }
        Ok(orders)
    }

    fn take(&mut self, order: &str) -> Result<()> {
        match order.split_once('=') {
            Some(("name", name)) => name.clone_into(&mut self.name),
            Some(("ip", address)) => {
                let (address, prefix) = address.split_once('/').context("no /")?;
                let prefix = prefix.parse().ok().filter(|length| *length <= 32).context("no length of a prefix")?;
                self.address = Some((address.parse()?, prefix));
            }
            Some(("port", port)) => self.port = Some(port.parse()?),
            Some(("delay", seconds)) => self.delay = seconds.parse()?,
            Some(("crash-after", seconds)) => self.crash_after = Some(seconds.parse()?),
            None if order == "disk" => self.disk = true,
            None if order == "ignore-shutdown" => self.ignore_shutdown = true,
            _ => bail!("nothing is called so"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordered_is_what_is_read() {
        let few = Orders { name: "a".into(), ..Orders::default() };
        let all = Orders {
            name: "b".into(),
            address: Some((Ipv4Addr::new(192, 0, 2, 61), 24)),
            port: Some(7),
            disk: true,
            delay: 3,
            crash_after: Some(0),
            ignore_shutdown: true,
        };
        for orders in [few, all] {
            assert_eq!(Orders::parse(&format!("root=/dev/x quiet {orders} more\n")).unwrap(), orders);
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for line in
            ["quiet", "guest.name=a guest.ip=192.0.2.1", "guest.name=a guest.ip=192.0.2.1/33", "guest.name=a guest.odd"]
        {
            assert!(Orders::parse(line).is_err(), "{line}");
        }
    }
}
