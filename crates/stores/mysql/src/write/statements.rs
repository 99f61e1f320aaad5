//! The statements that write rows, as SQL text.

use onelog_mapping::MappingPlan;

use super::Method;
use crate::names::{list, quote};

/// A statement for rows: its text for any number of them.
#[derive(Clone, Debug)]
pub(crate) struct RowSql {
    head: String,
    marks: String,
    tail: String,
}

impl RowSql {
    pub(crate) fn text(&self, rows: usize) -> String {
        let mut text = self.head.clone();
        for n in 0..rows {
            if n > 0 {
                text.push_str(", ");
            }
            text.push_str(&self.marks);
        }
        text.push_str(&self.tail);
        text
    }

    pub(crate) fn insert(mapping: &MappingPlan, table: &str, tail: String) -> Self {
        Self {
            tail,
            ..Self::insert_into(table, mapping.column_names())
        }
    }

    /// For rows that have the key and the offset of their record behind their own columns.
    pub(crate) fn insert_records(mapping: &MappingPlan, table: &str, record: &[String; 2]) -> Self {
        let record = record.iter().map(String::as_str);
        Self::insert_into(table, mapping.column_names().chain(record))
    }

    fn insert_into<'n>(table: &str, columns: impl Iterator<Item = &'n str> + Clone) -> Self {
        let marks = vec!["?"; columns.clone().count()].join(", ");
        Self {
            head: format!("INSERT INTO {} ({}) VALUES ", quote(table), list(columns)),
            marks: format!("({marks})"),
            tail: String::new(),
        }
    }
}

/// The statements of one mapping.
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    pub(crate) upsert: RowSql,
    pub(crate) insert: RowSql,
    pub(crate) delete: RowSql,
    pub(crate) update_one: String,
    pub(crate) stage: RowSql,
    /// What brings staged rows into the table.
    pub(crate) merge: [String; 2],
    pub(crate) empty_stage: String,
}

impl Statements {
    pub(crate) fn new(mapping: &MappingPlan, batch_table: &str, method: Method) -> Self {
        let table = quote(&mapping.into);
        let key = quote(&mapping.columns[mapping.key].name);
        let alias = method == Method::ManyRows { alias: true };
        let new = |column: &str| match alias {
            true => format!("onelog_new.{column}"),
            false => format!("VALUES({column})"),
        };
        let own_key = format!("{table}.{key}");
        let mut sets = vec![format!(
            "{own_key} = IF({own_key} = {}, {own_key}, NULL)",
            new(&key)
        )];
        let others = mapping.columns.iter().enumerate();
        for (_, column) in others.filter(|(n, _)| *n != mapping.key) {
            let column = quote(&column.name);
            sets.push(format!("{table}.{column} = {}", new(&column)));
        }
        let tail = format!(
            "{} ON DUPLICATE KEY UPDATE {}",
            if alias { " AS onelog_new" } else { "" },
            sets.join(", ")
        );
        let assigned: Vec<String> = mapping
            .column_names()
            .map(|name| format!("{} = ?", quote(name)))
            .collect();
        Self {
            upsert: RowSql::insert(mapping, &mapping.into, tail),
            insert: RowSql::insert(mapping, &mapping.into, String::new()),
            delete: RowSql {
                head: format!("DELETE FROM {table} WHERE {key} IN ("),
                marks: "?".into(),
                tail: ")".into(),
            },
            update_one: format!("UPDATE {table} SET {} WHERE {key} = ?", assigned.join(", ")),
            stage: RowSql::insert(mapping, batch_table, String::new()),
            merge: merge(mapping, &quote(batch_table), "TRUE"),
            empty_stage: format!("DELETE FROM {}", quote(batch_table)),
        }
    }
}

/// Updates the rows of a table that another table has as well, and inserts those it lacks; of its
/// rows `n` those that `which` is about.
pub(crate) fn merge(mapping: &MappingPlan, from: &str, which: &str) -> [String; 2] {
    let table = quote(&mapping.into);
    let key = quote(&mapping.columns[mapping.key].name);
    let assigned: Vec<String> = mapping
        .column_names()
        .map(|name| format!("t.{0} = n.{0}", quote(name)))
        .collect();
    let names: Vec<String> = mapping.column_names().map(quote).collect();
    let new: Vec<String> = names.iter().map(|name| format!("n.{name}")).collect();
    [
        format!(
            "UPDATE {table} t JOIN {from} n ON t.{key} = n.{key} SET {} WHERE {which}",
            assigned.join(", ")
        ),
        format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {from} n LEFT JOIN {table} t ON t.{key} = n.{key} WHERE t.{key} IS NULL AND {which}",
            names.join(", "),
            new.join(", ")
        ),
    ]
}
