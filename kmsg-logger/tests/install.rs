//! The logger as the program's logger. Alone in its file, because a program has only one.

use kmsg_logger::KmsgLogger;
use std::io::{Read, Seek};

#[test]
fn installed_it_gets_records_up_to_its_level_and_a_second_one_is_refused() {
    let mut file = tempfile::tempfile().unwrap();
    let logger = || KmsgLogger::new("sino").with_file(file.try_clone().unwrap());
    logger().install(log::LevelFilter::Info).unwrap();
    logger().install(log::LevelFilter::Trace).unwrap_err();
    log::error!("one");
    log::info!("two");
    log::debug!("three");
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "<27>sino: one\n<30>sino: two\n");
}
