//! The record of the boot, which stage two and the commands read again. Input: the JSON.
#![no_main]

use sino_boot::record::BootRecord;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<BootRecord>(json) {
        let written = serde_json::to_string(&record).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<BootRecord>(&written).expect("what was written can be read"), record);
    }
});
