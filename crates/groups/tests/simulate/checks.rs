//! What must hold whatever happens.

use std::collections::BTreeMap;

use onelog_groups::Record;

pub type Partition = i32;

#[derive(Debug, Default)]
pub struct Checks {
    /// Who leads a generation of one run of the coordinator.
    leaders: BTreeMap<(u32, i32), String>,
    /// Who has a partition in a generation: a generation is assigned once, also over restarts.
    owners: BTreeMap<(i32, Partition), String>,
    /// The generation of the last offset that was stored of each partition.
    generations: BTreeMap<Partition, i32>,
    /// The last offset that a client knows to be stored.
    confirmed: BTreeMap<Partition, i64>,
}

impl Checks {
    pub fn leads(&mut self, run: u32, generation: i32, member: &str) {
        let known = self.leaders.entry((run, generation));
        let known = known.or_insert_with(|| member.to_owned());
        assert_eq!(known, member, "generation {generation} has two leaders");
    }

    /// A client was given partitions: `identity` is its instance, or its member id.
    pub fn owns(&mut self, generation: i32, partitions: &[Partition], identity: &str) {
        for partition in partitions {
            let owner = self.owners.entry((generation, *partition));
            let owner = owner.or_insert_with(|| identity.to_owned());
            assert_eq!(
                owner, identity,
                "partition {partition} has two owners in generation {generation}"
            );
        }
    }

    /// An offset is being stored; its text is the generation of the member that commits it.
    pub fn stored(&mut self, record: &Record) {
        if let Record::PutOffset { at, record, .. } = record {
            let generation: i32 = record.metadata.parse().expect("a generation");
            let former = self.generations.insert(at.partition, generation);
            assert!(
                former.is_none_or(|former| former <= generation),
                "partition {}: generation {generation} commits after {former:?}",
                at.partition
            );
        }
    }

    pub fn confirmed(&mut self, partition: Partition, offset: i64) {
        let known = self.confirmed.entry(partition).or_default();
        *known = offset.max(*known);
    }

    /// A member begins to read here.
    pub fn reads_from(&self, partition: Partition, offset: Option<i64>) {
        let confirmed = self.confirmed.get(&partition).copied();
        assert!(
            offset >= confirmed,
            "partition {partition}: {offset:?} is read where {confirmed:?} was confirmed"
        );
    }
}
