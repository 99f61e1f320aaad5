//! The types of a table's columns when onelog filled it, against those that it has now.

use std::collections::BTreeMap;

/// The type of each mapped column by its name, as the store writes types.
pub type Shape = BTreeMap<String, String>;

/// What has changed since the table was filled, and may have changed its values. `keeps_values` says
/// whether every value of the first type is the same value in the second.
pub fn narrowed(was: &Shape, is: &Shape, keeps_values: fn(&str, &str) -> bool) -> Vec<String> {
    is.iter()
        .filter_map(|(name, is)| {
            let was = was.get(name).filter(|was| !keeps_values(was, is))?;
            Some(format!(
                "the column '{name}' was {was} when onelog filled it and is {is} now, so values that were there may have been cut, rounded or converted; give the column back its type, or leave it, and rebuild the sink: that writes every row again that differs"
            ))
        })
        .collect()
}
