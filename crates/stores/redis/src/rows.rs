//! The commands that write and delete rows, by partition: deletions first.

use super::content::{Look, write_plain, write_text};
use super::names::{List, Names};
use super::wire::{Commands, Form, Many};
use onelog_mapping::{Cell, MappingPlan, Plan, Row, TTL_SECONDS};
use onelog_store::{Change, StoreError};

const UNLINK: &[&[u8]] = &[b"UNLINK"];
const MSET: &[&[u8]] = &[b"MSET"];

/// Gathers the commands of one step.
pub(super) struct Rows<'a> {
    plan: &'a Plan,
    looks: &'a [Look],
    names: &'a Names,
    parts: Vec<Part>,
    row: &'a mut Row,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// The commands of one partition.
struct Part {
    unlink: Many,
    first: Commands,
    set: Many,
    then: Commands,
}

/// What a step does to one partition.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Deletions, and whatever must come before writing.
    pub(super) first: Commands,
    /// Rows.
    pub(super) then: Commands,
}

impl Step {
    pub(super) const fn new(form: Form) -> Self {
        Self {
            first: Commands::new(form),
            then: Commands::new(form),
        }
    }

    pub(super) const fn count(&self) -> usize {
        self.first.count + self.then.count
    }
}

/// Where a row is written.
#[derive(Clone, Copy)]
enum Place {
    Real,
    Staging,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        looks: &'a [Look],
        names: &'a Names,
        row: &'a mut Row,
    ) -> Self {
        let form = match names.are_spread() {
            false => Form::Command,
            true => Form::Arguments,
        };
        let part = || Part {
            unlink: Many::default(),
            first: Commands::new(form),
            set: Many::default(),
            then: Commands::new(form),
        };
        Self {
            plan,
            looks,
            names,
            parts: (0..names.partitions()).map(|_| part()).collect(),
            row,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Adds what a batch does to one mapping.
    pub(super) fn changes(&mut self, mapping: usize, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            match &change.value {
                None => self.delete(mapping, &change.key),
                Some(value) => self.write(mapping, change, value, Place::Real)?,
            }
        }
        Ok(())
    }

    /// Takes keys away wherever they stand: a copy in a partition where it does not belong is no
    /// row, but somebody may have made it.
    pub(super) fn forget_copies(&mut self, mapping: usize, changes: &[Change]) {
        for change in changes {
            for partition in 0..self.parts.len() {
                self.find_name(mapping, partition, &change.key, Place::Real);
                let part = &mut self.parts[partition];
                part.unlink.push(UNLINK, &[&self.name], &mut part.first);
            }
        }
    }

    /// Adds rows of a rebuild.
    pub(super) fn stage(&mut self, mapping: usize, rows: &[Change]) -> Result<(), StoreError> {
        let mut names = vec![Many::default(); self.parts.len()];
        for change in rows {
            let Some(value) = &change.value else { continue };
            self.write(mapping, change, value, Place::Staging)?;
            let partition = self.names.partition_of(&change.key);
            let list = self.names.list(List::New, partition, mapping);
            names[partition].push(
                &[b"RPUSH", &list],
                &[&change.key],
                &mut self.parts[partition].then,
            );
        }
        for (partition, mut many) in names.into_iter().enumerate() {
            let list = self.names.list(List::New, partition, mapping);
            many.finish(&[b"RPUSH", &list], &mut self.parts[partition].then);
        }
        Ok(())
    }

    fn delete(&mut self, mapping: usize, key: &[u8]) {
        let partition = self.names.partition_of(key);
        self.find_name(mapping, partition, key, Place::Real);
        let part = &mut self.parts[partition];
        part.unlink.push(UNLINK, &[&self.name], &mut part.first);
    }

    fn find_name(&mut self, mapping: usize, partition: usize, key: &[u8], place: Place) {
        self.name.clear();
        match place {
            Place::Real => {
                let template = &self.plan.mappings[mapping].key_template;
                self.names.row(template, partition, key, &mut self.name);
            }
            Place::Staging => {
                self.name = self.names.staging(partition, mapping);
                self.name.extend_from_slice(key);
            }
        }
    }

    fn write(
        &mut self,
        mapping: usize,
        change: &Change,
        value: &[u8],
        place: Place,
    ) -> Result<(), StoreError> {
        let plan = &self.plan.mappings[mapping];
        plan.project(&change.key, change.offset, value, self.row)
            .map_err(|fault| StoreError::refused_change(plan, change, fault))?;
        let partition = self.names.partition_of(&change.key);
        self.find_name(mapping, partition, &change.key, place);
        // A row of a rebuild begins to age when it is put in place.
        let life = match place {
            Place::Real => plan.options.count(TTL_SECONDS),
            Place::Staging => None,
        };
        let life = life.map(|seconds| seconds.to_string());
        let part = &mut self.parts[partition];
        if self.looks[mapping] == Look::Hash {
            // A key that somebody made a string would refuse fields, and old fields must go.
            part.unlink.push(UNLINK, &[&self.name], &mut part.first);
            write_hash(plan, self.row, &self.name, &mut self.value, &mut part.then);
            if let Some(life) = life {
                part.then.push(&[b"EXPIRE", &self.name, life.as_bytes()]);
            }
            return Ok(());
        }
        self.value.clear();
        write_text(
            self.looks[mapping],
            &plan.columns,
            self.row,
            &mut self.value,
        );
        match life {
            Some(life) => {
                let words: [&[u8]; 5] = [b"SET", &self.name, &self.value, b"EX", life.as_bytes()];
                part.then.push(&words);
            }
            None => part
                .set
                .push(MSET, &[&self.name, &self.value], &mut part.then),
        }
        Ok(())
    }

    /// The steps, one for each partition.
    pub(super) fn finish(self) -> Vec<Step> {
        self.parts
            .into_iter()
            .map(|mut part| {
                part.unlink.finish(UNLINK, &mut part.first);
                part.set.finish(MSET, &mut part.then);
                Step {
                    first: part.first,
                    then: part.then,
                }
            })
            .collect()
    }
}

fn write_hash(
    plan: &MappingPlan,
    row: &Row,
    name: &[u8],
    value: &mut Vec<u8>,
    commands: &mut Commands,
) {
    let there = row.cells.iter().filter(|cell| **cell != Cell::Null).count();
    commands.begin(2 + 2 * there);
    commands.word(b"HSET");
    commands.word(name);
    for (column, cell) in plan.columns.iter().zip(&row.cells) {
        if *cell != Cell::Null {
            value.clear();
            write_plain(cell, value);
            commands.word(column.name.as_bytes());
            commands.word(value);
        }
    }
}
