//! In which order tables are written in pieces, where each row is checked at once: the tables that a
//! foreign key leads to come first, whatever the order of the mappings, as far as that key is checked
//! at the end when all rows are written together. A key that is not, and leads to a later mapping, is
//! a fault of their order, and stays one.

use tokio_postgres::types::Type;

use super::merge::Merging;
use crate::ddl::table;
use crate::error::Fault;
use crate::store::Scope;

/// A foreign key of a table to one that the same sink fills.
pub(super) struct Key {
    pub(super) name: String,
    /// The number of the mapping of that table.
    to: usize,
    pub(super) is_checked_at_end: bool,
}

impl Scope<'_> {
    /// The foreign keys of a table to others of the sink; `defers`: all that can be are checked at the
    /// end.
    pub(super) async fn keys_of(
        &self,
        merging: &Merging<'_>,
        defers: bool,
    ) -> Result<Vec<Key>, Fault> {
        let schema = &self.identity.schema;
        let mappings = &self.identity.plan.mappings;
        let all: Vec<String> = mappings.iter().map(|to| table(schema, &to.into)).collect();
        let into = table(schema, &merging.mapping.into);
        let sql = "SELECT conname::text, condeferrable AND (condeferred OR $3), filled.number - 1
            FROM pg_catalog.pg_constraint
              JOIN unnest($2::text[]) WITH ORDINALITY AS filled (name, number)
                ON confrelid = to_regclass(filled.name)
            WHERE contype = 'f' AND conrelid = to_regclass($1)";
        let values = &[
            (&into as _, Type::TEXT),
            (&all as _, Type::TEXT_ARRAY),
            (&defers as _, Type::BOOL),
        ];
        let found = self.client.query_typed(sql, values).await?;
        let keys = found.iter().map(|row| Key {
            name: row.get(0),
            is_checked_at_end: row.get(1),
            to: usize::try_from(row.get::<_, i64>(2)).unwrap_or(usize::MAX),
        });
        Ok(keys.filter(|key| key.to != merging.number).collect())
    }
}

/// The places of tables, `numbers` and `keys` in the order of the mappings, in the order in which they
/// are written. Tables that lead to one another are written as they come.
pub(super) fn parents_first(numbers: &[usize], keys: &[Vec<Key>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(numbers.len());
    let mut seen = vec![false; numbers.len()];
    // Places, and how many of the keys of each were followed.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for first in 0..numbers.len() {
        if seen[first] {
            continue;
        }
        seen[first] = true;
        path.push((first, 0));
        while let Some((place, followed)) = path.last_mut() {
            let from = numbers[*place];
            let Some(key) = keys[*place].get(*followed) else {
                order.push(*place);
                path.pop();
                continue;
            };
            *followed += 1;
            let is_followed = key.is_checked_at_end || key.to < from;
            let to = numbers.iter().position(|number| *number == key.to);
            if let Some(to) = to.filter(|to| is_followed && !seen[*to]) {
                seen[to] = true;
                path.push((to, 0));
            }
        }
    }
    order
}

/// Of the keys of a table, those that lead to one that is not written before it, by `order`, or that
/// should be by that of the mappings.
pub(super) fn unmet<'k>(
    place: usize,
    numbers: &[usize],
    keys: &'k [Key],
    order: &[usize],
) -> Vec<&'k Key> {
    let when = |place: usize| order.iter().position(|of| *of == place);
    let is_unmet = |key: &&Key| {
        let is_later = key.to > numbers[place];
        match numbers.iter().position(|number| *number == key.to) {
            Some(_) if is_later && !key.is_checked_at_end => true,
            Some(to) => when(to) > when(place),
            None => is_later,
        }
    };
    keys.iter().filter(is_unmet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(to: usize, is_checked_at_end: bool) -> Key {
        Key {
            name: format!("to{to}"),
            to,
            is_checked_at_end,
        }
    }

    fn unmet_names(place: usize, keys: &[Vec<Key>]) -> Vec<String> {
        let numbers: Vec<usize> = (0..keys.len()).collect();
        let order = parents_first(&numbers, keys);
        let unmet = unmet(place, &numbers, &keys[place], &order);
        unmet.iter().map(|key| key.name.clone()).collect()
    }

    #[test]
    fn what_a_key_leads_to_is_written_first_unless_it_must_be_by_the_mappings() {
        // Given children before parents before grandparents, whose keys are checked at the end,
        let keys = [vec![key(1, true)], vec![key(2, true)], vec![]];
        assert_eq!(parents_first(&[0, 1, 2], &keys), [2, 1, 0]);
        assert!(unmet_names(0, &keys).is_empty());
        // and others whose keys are not: they are written as the mappings say.
        let keys = [vec![key(1, false)], vec![]];
        assert_eq!(parents_first(&[0, 1], &keys), [0, 1]);
        assert_eq!(unmet_names(0, &keys), ["to1"]);
        let keys = [vec![], vec![key(0, false)]];
        assert_eq!(parents_first(&[0, 1], &keys), [0, 1]);
        assert!(unmet_names(1, &keys).is_empty());
    }

    #[test]
    fn of_tables_that_lead_to_one_another_a_key_stays_unmet() {
        for is_checked_at_end in [true, false] {
            let keys = [vec![key(1, true)], vec![key(0, is_checked_at_end)]];
            let all = [unmet_names(0, &keys), unmet_names(1, &keys)].concat();
            assert_eq!(all.len(), 1, "{all:?}");
        }
        // A table that is not merged is none of them.
        let keys = [vec![key(2, true)]];
        assert_eq!(parents_first(&[0], &keys), [0]);
    }
}
