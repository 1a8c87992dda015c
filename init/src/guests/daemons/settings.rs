//! What `/etc/default/xen` says: assignments of a shell script that Debian's `/etc/init.d/xen` reads.

use std::collections::BTreeMap;

/// The file.
pub(super) const FILE: &str = "/etc/default/xen";

/// The settings that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Which xenstored; `None`: the one that Debian prefers.
    pub(super) xenstored: Option<String>,
    /// Further arguments of xenstored.
    pub(super) xenstored_args: Vec<String>,
    /// Further arguments of xenconsoled.
    pub(super) xenconsoled_args: Vec<String>,
}

impl Settings {
    /// Reads plain assignments; what only a shell could evaluate is taken as it is written.
    pub(super) fn read(text: &str) -> Self {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            if let Some((key, value)) = line.split_once('=')
                && !line.starts_with('#')
            {
                values.insert(key.trim(), unquoted(value));
            }
        }
        let words = |key: &str| values.get(key).into_iter().flat_map(|text| text.split_whitespace());
        Self {
            xenstored: values.get("XENSTORED").filter(|value| !value.is_empty()).cloned(),
            xenstored_args: words("XENSTORED_ARGS").map(str::to_owned).collect(),
            xenconsoled_args: words("XENCONSOLED_ARGS").map(str::to_owned).collect(),
        }
    }
}

/// The value without its quotes, or up to a comment.
fn unquoted(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner.to_owned();
        }
    }
    value.split(" #").next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn assignments_are_read_as_a_shell_reads_them() {
        let text = "# a comment\n#XENSTORED=/usr/sbin/oxenstored\nXENSTORED_ARGS=\n";
        assert_eq!(Settings::read(text), Settings::default());
        let text = "XENSTORED=/usr/lib/xen-4.20/bin/xenstored # C\nexport XENSTORED_ARGS=\"-W 200  -E 5\" # more\n\
                    XENCONSOLED_ARGS='--log=all'\n";
        let settings = Settings::read(text);
        assert_eq!(settings.xenstored.as_deref(), Some("/usr/lib/xen-4.20/bin/xenstored"));
        assert_eq!(settings.xenstored_args, ["-W", "200", "-E", "5"]);
        assert_eq!(settings.xenconsoled_args, ["--log=all"]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            let _ = Settings::read(&text);
        }
    }
}
