//! The module table inside the initramfs, and the aliases that devices ask with. Input: an alias, a line feed, the table.
#![no_main]

use sino_boot::modules::{self, ModuleTable};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    // A carriage return before a line feed is not read, as the image builder writes none.
    let Some((alias, text)) = text.split_once('\n').filter(|(_, text)| !text.contains('\r')) else { return };
    if let Ok(table) = ModuleTable::parse(text) {
        let again = ModuleTable::parse(&table.to_text()).expect("what was written can be read");
        assert_eq!(again, table);
        let found = table.for_alias(alias);
        for (pattern, module) in table.aliases.iter() {
            let wanted = modules::matches(pattern, alias);
            let others = || table.aliases.iter().any(|(other, of)| of == module && modules::matches(other, alias));
            assert_eq!(found.contains(&module.as_str()), wanted || others());
        }
    }
});
