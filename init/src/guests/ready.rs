//! What "ready" means for a guest.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// When a guest is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Ready {
    /// Its domain runs.
    #[default]
    Running,
    /// It answers an ICMP echo request at this address.
    Ping(IpAddr),
    /// It accepts a TCP connection at this address.
    Tcp(SocketAddr),
    /// A path of the xenstore exists or, if given, has this value. Without a leading slash it is below the guest's own folder.
    Xenstore {
        /// The path.
        path: String,
        /// Its value.
        value: Option<String>,
    },
    /// A line of its console matches this regular expression.
    Console(String),
}

impl FromStr for Ready {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        Ok(match (word, rest) {
            ("running", "") => Self::Running,
            ("ping", address) => Self::Ping(address.parse().with_context(|| format!("{address:?} is no IP address"))?),
            ("tcp", address) => Self::Tcp(
                address.parse().with_context(|| format!("{address:?} is no ADDRESS:PORT, such as 192.0.2.5:22"))?,
            ),
            ("xenstore", item) if !item.is_empty() => match item.split_once('=') {
                Some((path, value)) => Self::Xenstore { path: path.trim().into(), value: Some(value.trim().into()) },
                None => Self::Xenstore { path: item.into(), value: None },
            },
            ("console", pattern) if !pattern.is_empty() => {
                Self::Console(pattern.strip_prefix('"').and_then(|p| p.strip_suffix('"')).unwrap_or(pattern).into())
            }
            _ => bail!(
                "{text:?} is not one of: running, ping ADDRESS, tcp ADDRESS:PORT, xenstore PATH[=VALUE], console \"REGEX\""
            ),
        })
    }
}

impl TryFrom<String> for Ready {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Ready> for String {
    fn from(ready: Ready) -> Self {
        ready.to_string()
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Ping(address) => write!(f, "ping {address}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Xenstore { path, value: None } => write!(f, "xenstore {path}"),
            Self::Xenstore { path, value: Some(value) } => write!(f, "xenstore {path}={value}"),
            Self::Console(pattern) => write!(f, "console \"{pattern}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_written_alike_and_nonsense_is_told() {
        for text in [
            "running",
            "ping 192.0.2.5",
            "ping 2001:db8::1",
            "tcp 192.0.2.5:22",
            "tcp [2001:db8::1]:22",
            "xenstore data/up",
            "xenstore /local/pool/0=a b",
            "console \"login: $\"",
        ] {
            assert_eq!(text.parse::<Ready>().unwrap().to_string(), text);
        }
        assert_eq!("console login:".parse::<Ready>().unwrap(), Ready::Console("login:".into()));
        for text in ["", "runing", "ping", "ping host", "tcp 192.0.2.5", "xenstore", "console", "running now"] {
            assert!(text.parse::<Ready>().is_err(), "{text}");
        }
    }
}
