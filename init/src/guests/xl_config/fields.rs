//! Takes a file's settings by name and type, as xl does: what has the wrong type is warned of and left out.

use super::{At, Notes, Setting, Value};
use std::collections::HashMap;

pub(super) struct Fields<'a> {
    settings: HashMap<&'a str, &'a Setting>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(settings: &'a [Setting]) -> Self {
        Self { settings: settings.iter().map(|setting| (setting.name.as_str(), setting)).collect() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Setting> {
        self.settings.get(name).copied()
    }

    pub(super) fn text(&self, name: &str, notes: &mut Notes) -> Option<At<String>> {
        let setting = self.get(name)?;
        let text = setting.value.text();
        if text.is_none() {
            notes.warning(setting.line, setting.column, name, "is a list where xl wants one value; xl leaves it out");
        }
        text.map(|text| At { value: text.to_owned(), line: setting.line })
    }

    pub(super) fn number(&self, name: &str, notes: &mut Notes) -> Option<At<i64>> {
        let setting = self.get(name)?;
        let (line, column) = (setting.line, setting.column);
        if setting.value.text().is_some() && setting.added {
            notes.warning(line, column, name, "is made with +=, of which xl takes no number; xl leaves it out");
            return None;
        }
        let text = self.text(name, notes)?.value;
        let number = setting.value.number();
        if number.is_none() {
            let text = format!("{text:?} is no number (a unit is not read either); xl leaves it out");
            notes.warning(line, column, name, &text);
        }
        number.map(|value| At { value, line })
    }

    /// A number that is above 0; xl would take any other and fail over it.
    pub(super) fn positive(&self, name: &str, notes: &mut Notes) -> Option<At<u64>> {
        let At { value, line } = self.number(name, notes)?;
        // Above 2^40 (MiB, or CPUs) it is no more than a slip, and sums of it must not overflow.
        let positive = u64::try_from(value).ok().filter(|value| (1..1 << 40).contains(value));
        if positive.is_none() {
            let column = self.get(name).map_or(1, |setting| setting.column);
            notes.error(line, column, name, &format!("{value} is out of range; xl fails over it"));
        }
        positive.map(|value| At { value, line })
    }

    pub(super) fn flag(&self, name: &str, notes: &mut Notes) -> Option<bool> {
        self.number(name, notes).map(|number| number.value != 0)
    }

    /// The texts of a list. xl stops at the first item that is a list itself.
    pub(super) fn texts(&self, name: &str, notes: &mut Notes) -> Vec<(&'a str, &'a Value)> {
        let Some(setting) = self.get(name) else { return Vec::new() };
        let Some(items) = setting.value.list() else {
            let text = format!("must be a list; xl leaves it out; try: {name} = [ {} ]", setting.value);
            notes.warning(setting.line, setting.column, name, &text);
            return Vec::new();
        };
        if let Some(item) = items.iter().find(|item| item.text().is_none()) {
            let text = "this item is a list; xl leaves it and all items behind it out";
            notes.warning(item.line, item.column, name, text);
        }
        items.iter().map_while(|item| Some((item.text()?, item))).collect()
    }
}
