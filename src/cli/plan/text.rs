//! The plan as text, for people. Pure.

use super::differences::{KeyChange, PlannedChange, ReloadPlan, ZonePlan};
use crate::admin::client::escape_controls;

/// Writes a plan.
pub(super) fn render(plan: &ReloadPlan) -> String {
    let file = plan.file.display();
    let nothing = if plan.summary().is_none() { "nothing" } else { "this" };
    let mut lines = vec![format!("{}: a reload of {file} would change {nothing}", plan.server)];
    if plan.older_is_served {
        lines.push(
            "an older configuration than the server's file is in force, because that file was refused".to_owned(),
        );
    }
    if plan.summary().is_none() && plan.hash != plan.hash_in_force {
        lines.push("only comments, spelling or order differ from what is in force".to_owned());
    }
    for zone in &plan.zones {
        lines.push(zone.heading());
        let line = if zone.change == PlannedChange::Added { KeyChange::value } else { KeyChange::line };
        add(&mut lines, zone.keys.iter().map(line), &zone.effects);
    }
    if plan.further_zones() > 0 {
        lines.push(format!("and {} further zones", plan.further_zones()));
    }
    for section in &plan.sections {
        lines.push(format!("~ {}", section.section));
        add(&mut lines, section.keys.iter().map(KeyChange::line), &section.effects);
    }
    lines.extend(plan.warnings.iter().map(|warning| format!("warning: {warning}")));
    escape_controls(&format!("{}\n", lines.join("\n")))
}

fn add(lines: &mut Vec<String>, keys: impl Iterator<Item = String>, effects: &[String]) {
    lines.extend(keys.map(|key| format!("    {key}")));
    lines.extend(effects.iter().map(|effect| format!("    => {effect}")));
}

impl ZonePlan {
    fn heading(&self) -> String {
        let (sign, word) = match self.change {
            PlannedChange::Removed => ('-', "removed, was at "),
            PlannedChange::Changed => ('~', ""),
            PlannedChange::Added => ('+', ""),
        };
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{sign} {} ({word}{file}{line})", self.name)
    }
}

impl KeyChange {
    fn line(&self) -> String {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        format!("{}: {} -> {}", self.key, shown(&self.old), shown(&self.new))
    }

    /// Of a zone that was not there before.
    fn value(&self) -> String {
        format!("{} = {}", self.key, self.new.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ZoneName;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_of_a_file_reaches_the_terminal_as_it_is(value in any::<String>(), path in any::<String>()) {
            let key = KeyChange { key: "nsid".to_owned(), old: Some(value.clone()), new: None };
            let zone = ZonePlan {
                name: ZoneName::root(),
                change: PlannedChange::Changed,
                file: Some(path.into()),
                line: Some(1),
                keys: vec![key],
                effects: vec![value],
            };
            let shown = render(&ReloadPlan { zones: vec![zone], ..ReloadPlan::default() });
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
        }
    }
}
