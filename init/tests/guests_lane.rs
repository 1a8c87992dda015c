//! The guests' lane as a whole: the real supervisor, under a process 1 that starts it again when it is killed, with a fake xl
//! (`init/examples/fake-xl`) and a played xenstored.
//!
//! Each trial has a host of its own: namespaces for mounts, processes, network and names, so that the supervisor finds
//! everything where it is on a real host. Needs root, `unshare` (util-linux), and the fake built:
//! `cargo build -p sino-init --example fake-xl`.

#[path = "guests_lane/asked.rs"]
mod asked;
#[path = "guests_lane/bad_input.rs"]
mod bad_input;
#[path = "guests_lane/host.rs"]
mod host;
#[path = "fake-xl/lab.rs"]
mod lab;
#[path = "guests_lane/machine.rs"]
mod machine;
#[path = "guests_lane/trials.rs"]
mod trials;
#[path = "guests_lane/xenstored.rs"]
mod xenstored;

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [machine::WORD, folder] = given.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        return machine::run(Path::new(folder));
    }
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    if ["oxenstored", "xenconsoled"].contains(&name.as_str()) {
        return xenstored::daemon(&program, &name);
    }
    let arguments = Arguments::from_args();
    if !arguments.list && !rustix::process::geteuid().is_root() {
        eprintln!("root is needed; run: make check (it uses sudo), or this command with sudo");
        return ExitCode::FAILURE;
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial("many_guests_start_once_in_their_order_without_much_ado", trials::many),
        trial("a_supervisor_that_is_killed_again_and_again_starts_each_guest_once", trials::killed),
        trial("an_xl_that_fails_hangs_or_lies_holds_up_nobody_else", trials::misbehaving),
        trial("an_xl_that_prints_garbage_starts_the_guests", trials::garbage),
        trial("bad_files_are_named_and_the_good_ones_start", trials::bad_files),
        trial("a_folder_that_cannot_be_read_is_named", trials::bad_folder),
        trial("what_another_domain_has_is_refused_at_boot_and_by_hand", trials::disks),
        trial("a_domain_that_stays_is_not_ready_and_a_forbidden_reboot_is_no_crash", trials::ends),
        trial("a_xenstored_that_is_lost_and_comes_back_is_taken_up_again", trials::xenstored),
        trial("guests_stop_in_the_reverse_order_whatever_one_does", trials::stop),
        trial("a_stop_goes_on_over_a_kill_and_its_report_is_kept", trials::stop_killed),
        trial("start_stop_and_restart_take_several_guests_and_wait_for_all", asked::several),
        trial("a_supervisor_that_was_killed_before_it_said_so_is_made_up_for", asked::nothing_said),
        trial("a_boot_that_the_hosts_stop_ends_is_kept", asked::ended_boot),
        trial("a_link_to_nothing_or_to_itself_is_named_once", bad_input::links),
        trial("a_bad_key_of_a_guests_table_is_named_and_costs_no_other_guest", bad_input::tables),
        trial("a_sino_toml_that_is_no_text_is_named_and_the_guests_start", bad_input::no_toml),
        trial("a_xenstored_that_dies_in_the_middle_of_a_create_costs_no_guest", bad_input::xenstored_dies),
    ];
    // One after the other: the figures of one would be spoilt by the others.
    libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials).exit_code()
}
