//! Prints `docs/CONFIG.md`: `cargo run -q -p sino-init --example config-doc > docs/CONFIG.md`.

use sino_init::config::keys::{KEYS, SECTIONS};
use std::fmt::Write as _;
use std::io::Write as _;

const INTRODUCTION: &str = r"# Configuration

<!-- Generated: cargo run -q -p sino-init --example config-doc > docs/CONFIG.md -->

A host that nobody has configured works: it takes a lease on `xenbr0`, uses the volume group `xvg` if there is one, and starts.
What is to be different stands in a file `sino.toml` ([TOML](https://toml.io)), with nothing in it but that.

## Where to put it

There are four layers. A higher one replaces what a lower one says, key by key: tables merge; a list or a single value replaces
that of the layer below as a whole.

| layer | where | for |
|---|---|---|
| flags (highest) | the kernel's command line | one boot; see below |
| srv | `/srv/sino/sino.toml` on the host's volume | this host, whatever stick it is booted from |
| stick | `sino.toml` on the stick's FAT partition `SINO-EFI`, which any system can write | whatever host this stick is in |
| image (lowest) | `/etc/sino/sino.toml` in the image | every host of this build; it is all comments, and a good file to begin from |

Stage one copies the stick's file to `/run/sino/stick/sino.toml` at boot, so the stick may be pulled when the host says so. The
volume group is found before `/srv` is mounted, so `[storage]` in `/srv/sino/sino.toml` comes too late for the boot: give it on
the stick or as a flag. A changed file has effect at the next boot, but for
the network (`sino network apply`), guests (`[guest.NAME]` at the next `sino guests start` or `restart`, `guests.stop_deadline` at the next
stop) and `[storage]` (also at the next `srv start`).

Text is UTF-8, the file is at most 256 KiB.

## What holds, and whether a file is right

`sino config show` prints every key with the layer, file and line that its value came from; with `--json` for programs.
`sino config check` looks for mistakes in all layers, `sino config check FILE` in one file before it is copied to the stick:

```text
/srv/sino/sino.toml:7:1: boot.handover: 900 is out of range; allowed: seconds, 0 to 600; what the layer below says holds instead
```

A mistake never stops the boot:

- A key that is not known is a warning and has no effect.
- A value that cannot be used is an error; that key keeps the value of the layer below, and all others hold.
- A file that is not TOML, not UTF-8, too large or unreadable is an error and is left out; the other layers hold.

## Flags

| flag | what it sets |
|---|---|
| `sino.handover=SECONDS` | `boot.handover` |
| `sino.set=KEY=VALUE` | any key; may be given more than once |
| `ip=...`, `sino.net=...` | the network in short, see *For one boot* in [NETWORK.md](NETWORK.md) |

The value of `sino.set` is TOML, and what is not TOML is taken as text. The kernel's command line keeps double quotes for itself,
so use single ones: `sino.set=system.hostname=xen7 sino.set=network.dns=['192.0.2.53','192.0.2.54']`. `sino.set` stands above the
other flags, and the last one of a key wins. [BOOT-FLAGS.md](BOOT-FLAGS.md) has all other flags.

";

const EXAMPLES: &str = r#"
## Examples

A static address:

```toml
[system]
hostname = "xen1.example.org"

[network]
dns = ["192.0.2.53", "2001:db8::53"]
search = ["example.org"]

[network.bridge.xenbr0]
ports = ["eno1"]
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
gateways = ["192.0.2.1", "2001:db8::1"]
routes = ["10.0.0.0/8 via 192.0.2.254"]
```

The host on VLAN 10, tagged, while guests stay untagged:

```toml
[network.bridge.xenbr0]
host_vlan = 10
addresses = ["192.0.2.10/24"]
gateways = ["192.0.2.1"]
```

All of the bridge on VLAN 20 of a card, guests too:

```toml
[network.vlan.vlan20]
link = "eno1"
id = 20

[network.bridge.xenbr0]
ports = ["vlan20"]
```

Two cards as one link, with LACP:

```toml
[network.bond.bond0]
ports = ["eno1", "eno2"]
mode = "802.3ad"

[network.bridge.xenbr0]
ports = ["bond0"]
```

A second bridge that only guests use, on a card of its own with large packets, and one that leads nowhere:

```toml
[network.bridge.xenbr1]
ports = ["eno2"]
mtu = 9000

[network.bridge.inside]
```

The network in the hands of ifupdown (or systemd-networkd), with its own files:

```toml
[network]
managed = false
```

Keys for ssh, and no password:

```toml
[access]
ssh_password = false
authorized_keys = [
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHq1tVjN8wJQhRkq0b0x7n3b8m5yqg2Jc1w9r6c4hXyz admin@example.org",
]
```

Another volume group:

```toml
[storage]
group = "vg0"
srv = "srv"
swap_priority = 10
```

A database, and a web server that starts when the database answers, but not without it; one guest that is only started by hand:

```toml
[guest.db]
ready = "tcp 192.0.2.20:5432"
on_failure = "hold-dependents"
stop_timeout = 170

[guest.web]
after = ["db"]
ready = "ping 192.0.2.21"

[guest.test]
config = "/srv/guests/test.cfg"
autostart = false
stop = "destroy"
restart = "no"
```
"#;

/// The page.
pub(crate) fn page() -> String {
    let mut page = format!("{INTRODUCTION}## Keys\n");
    // A bar would end the cell. Writing to a String cannot fail.
    let cell = |text: &str| text.replace('|', "\\|");
    for section in SECTIONS {
        let _ = write!(page, "\n### `[{}]`\n\n{}\n\n", section.name, section.help);
        page.push_str("| key | values | default | what it does |\n|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section() == section.name) {
            let (values, default, help) = (cell(key.values), cell(key.default), cell(key.help));
            let _ = writeln!(page, "| `{}` | {values} | {default} | {help} |", key.short());
        }
    }
    page + EXAMPLES
}

#[allow(dead_code, reason = "the test that compares the page includes this file and calls page() only")]
fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(page().as_bytes())
}
