//! The types of a table's columns when onelog backfilled it, against those that it has now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The type of each mapped column by its name, as the store writes types.
pub type Shape = BTreeMap<String, String>;

/// The columns that were seen with a type that may have changed their values: by name, the type when
/// onelog backfilled the table and the one that was seen. A store keeps them until it is backfilled
/// again: a column that has its type back has not got its values back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Narrowed(BTreeMap<String, [String; 2]>);

impl Narrowed {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the columns of a table as it is now; whether there is one that was not known. `keeps_values`
    /// says whether every value of the first type is the same value in the second.
    #[must_use]
    pub fn note(&mut self, was: &Shape, is: &Shape, keeps_values: fn(&str, &str) -> bool) -> bool {
        let known = self.0.len();
        for (name, is) in is {
            if let Some(was) = was.get(name).filter(|was| !keeps_values(was, is)) {
                let types = || [was.clone(), is.clone()];
                self.0.entry(name.clone()).or_insert_with(types);
            }
        }
        self.0.len() > known
    }

    /// What is said of them, where the table is like this now.
    #[must_use]
    pub fn say(&self, is: &Shape) -> Vec<String> {
        let say = |(name, [was, seen]): (&String, &[String; 2])| {
            let (seen, then) = match is.get(name) {
                Some(is) if is == seen => (format!("is {seen} now"), ""),
                _ => (
                    format!("was {seen} at a later look"),
                    "a type that is put back brings no value back: ",
                ),
            };
            format!(
                "the column '{name}' was {was} when onelog backfilled it and {seen}, so values that were there may have been cut, rounded or converted; {then}{REMEDY}"
            )
        };
        self.0.iter().map(say).collect()
    }
}

const REMEDY: &str = "give the column the type that it should have, and rebuild the sink (onelog sinks rebuild): that writes every row again that differs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_has_its_type_back_is_still_said_to_have_had_another_one() {
        let shape = |total: &str| Shape::from([("total".to_owned(), total.to_owned())]);
        let same = |was: &str, is: &str| was == is;
        let (was, is) = (shape("numeric"), shape("numeric(10,2)"));
        let mut narrowed = Narrowed::default();
        assert!(!narrowed.note(&was, &was, same));
        assert!(narrowed.say(&was).is_empty());
        // Given a column that was seen with another type,
        assert!(narrowed.note(&was, &is, same));
        let said = narrowed.say(&is).join("");
        let changed = "'total' was numeric when onelog backfilled it and is numeric(10,2) now";
        assert!(said.contains(changed), "{said}");
        // when it has its type back, or a third one, then nothing is new and both are named.
        for is in [&was, &shape("real")] {
            assert!(!narrowed.note(&was, is, same));
            let said = narrowed.say(is).join("");
            let changed =
                "was numeric when onelog backfilled it and was numeric(10,2) at a later look";
            assert!(said.contains(changed), "{said}");
            assert!(said.contains("onelog sinks rebuild"), "{said}");
        }
        let text = serde_json::to_string(&narrowed).unwrap();
        assert_eq!(text, r#"{"total":["numeric","numeric(10,2)"]}"#);
    }
}
