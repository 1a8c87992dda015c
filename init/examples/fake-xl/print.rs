//! What xl prints. Source of the forms: xen `tools/xl/xl_info.c` and `xl_vmcontrol.c`.

use crate::script::Script;
use crate::state::{Domain, now};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;

const HOST_MIB: u64 = 1024;

fn host() -> Domain {
    Domain {
        id: 0,
        name: "Domain-0".into(),
        uuid: "00000000-0000-0000-0000-000000000000".into(),
        kind: "pv".into(),
        memory_mib: HOST_MIB,
        vcpus: 2,
        building: false,
        made: 0,
        ends: None,
        crashes: None,
        reboots: None,
        preserve: false,
        disks: Vec::new(),
    }
}

/// `xl list` and, `long`, `xl list -v`.
pub(crate) fn table(domains: &[Domain], long: bool) -> String {
    let mut text = "Name                                        ID   Mem VCPUs\tState\tTime(s)".to_owned();
    text += if long { "   UUID                            Reason-Code\tSecurity Label\n" } else { "\n" };
    for domain in [host()].iter().chain(domains) {
        let crashed = domain.has_crashed();
        let state = match (domain.id, domain.building, crashed) {
            (0, ..) => "r-----",
            (_, true, _) => "--p---",
            (_, _, true) => "---sc-",
            _ => "-b----",
        };
        #[allow(clippy::cast_precision_loss, reason = "seconds with one digit")]
        let seconds = if domain.made == 0 { 12.3 } else { now().saturating_sub(domain.made) as f64 / 1000.0 };
        let Domain { name, id, memory_mib, vcpus, .. } = domain;
        let _ = write!(text, "{name:<40} {id:>5} {memory_mib:>5} {vcpus:>5}     {state}  {seconds:>8.1}");
        if long {
            let reason = if crashed { "3" } else { "-" };
            let _ = write!(text, " {} {reason:>8} {:>16}", domain.uuid, "-");
        }
        text.push('\n');
    }
    text
}

fn config(domain: &Domain) -> Value {
    json!({
        "c_info": {
            "type": domain.kind,
            "name": domain.name,
            "uuid": domain.uuid,
            "run_hotplug_scripts": "True"
        },
        "b_info": {
            "max_vcpus": domain.vcpus,
            "avail_vcpus": (0..domain.vcpus).collect::<Vec<_>>(),
            "max_memkb": domain.memory_mib * 1024,
            "target_memkb": domain.memory_mib * 1024,
            "sched_params": {},
            "type.pvh": {}
        },
        "on_reboot": "restart",
        "on_soft_reset": "soft_reset"
    })
}

fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, form));
    String::from_utf8_lossy(&bytes).into_owned() + "\n"
}

/// `xl list -l`.
pub(crate) fn json(domains: &[Domain]) -> String {
    let all =
        [host()].iter().chain(domains).map(|domain| json!({"domid": domain.id, "config": config(domain)})).collect();
    pretty(&Value::Array(all)) + "\n"
}

/// `xl -N create`.
pub(crate) fn dry_run(domain: &Domain) -> String {
    pretty(&config(domain))
}

/// `xl info`.
pub(crate) fn info(script: &Script, used_mib: u64) -> String {
    let free = script.memory_mib.saturating_sub(used_mib);
    format!(
        "host                   : sino
release                : 6.12.57+deb13-amd64
version                : #1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)
machine                : x86_64
nr_cpus                : 2
max_cpu_id             : 1
nr_nodes               : 1
cores_per_socket       : 2
threads_per_core       : 1
cpu_mhz                : 2445.406
hw_caps                : 178bf3ff:f6d8320b:2e500800:244033ff:0000000f:219c91a9:00400004:00000500
virt_caps              : pv hvm hap shadow gnttab-v1 gnttab-v2
total_memory           : {}
free_memory            : {free}
sharing_freed_memory   : 0
sharing_used_memory    : 0
outstanding_claims     : 0
free_cpus              : 0
xen_major              : 4
xen_minor              : 20
xen_extra              : .0
xen_version            : 4.20.0
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64
xen_scheduler          : credit2
xen_pagesize           : 4096
platform_params        : virt_start=0xffff800000000000
xen_changeset          :
xen_commandline        : placeholder dom0_mem=1024M,max:1024M
cc_compiler            : gcc (Debian 14.2.0-19) 14.2.0
cc_compile_by          : pkg-xen-devel
cc_compile_domain      : lists.alioth.debian.org
cc_compile_date        : Sat Mar 22 12:00:00 UTC 2025
build_id               : 0123456789abcdef0123456789abcdef01234567
xend_config_format     : 4
",
        script.memory_mib + HOST_MIB
    )
}

/// `xl dmesg`.
pub(crate) const RING: &str = "(XEN) [00000000000d6a0f] Xen version 4.20.0 (Debian 4.20.0+68-g35cb38b222-1) (pkg-xen-devel@lists.alioth.debian.org)
(XEN) [    0.000000] Bootloader: GRUB 2.12-9
(XEN) [    0.412345] Xen is relinquishing VGA console.
(XEN) [    0.512345] Freed 692kB init memory
";
