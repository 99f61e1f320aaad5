//! Taking back the end of the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use onelog_record::Index;

use crate::frame::Salt;
use crate::index_file::index_name;
use crate::mend::{remove_if_there, remove_segment};
use crate::scan::{scan, zero_rest};
use crate::segment::Segment;
use crate::{Log, ReadError, TruncateError};

impl Log {
    /// Takes back all entries from `index` on, durably: nothing of them can come back. For a
    /// follower whose leader has other entries there; committed entries MUST NOT be taken back.
    ///
    /// # Errors
    /// When flushes are in flight or `index` does not lie in the log, nothing is changed. A failure
    /// of the disk is final; the next opening completes the truncation.
    pub fn truncate_from(&mut self, index: Index) -> Result<(), TruncateError> {
        if self.shared.gate.is_closed() {
            return Err(TruncateError::Stopped);
        }
        if self.flushes_in_flight() > 0 {
            return Err(TruncateError::InFlight(self.flushes_in_flight()));
        }
        let (first, last) = (self.first_index(), self.last_index());
        if index < first || index > last {
            return Err(TruncateError::Outside { index, first, last });
        }
        let result = self.truncate(index);
        if result.is_err() {
            self.shared.gate.close();
        }
        result
    }

    fn truncate(&mut self, index: Index) -> Result<(), TruncateError> {
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().iter().cloned().collect();
        let place = segments.partition_point(|s| s.header.first_index <= index) - 1;
        let kept = &segments[place];
        let disk = Arc::clone(&self.shared.disk);
        let file = kept.file(&*disk)?;
        let mut extent = kept.extent.read().clone();
        extent.rewind(&kept.header, index);
        let salt = Salt::of(kept.header.log_id);
        let every = self.options.index_every_bytes;
        let (_, fault) = scan(&*file, salt, &mut extent, every, index, &mut |_| {})?;
        if extent.next_index != index {
            return Err(TruncateError::Read(ReadError::Corrupt(crate::Corruption {
                file: kept.name.clone(),
                at: extent.end,
                index: extent.next_index,
                what: fault.to_string(),
            })));
        }
        let mut hard = self.shared.hard.lock();
        let Some(hard) = hard.as_mut() else {
            return Ok(());
        };
        // The intent first: frames behind a half-zeroed cut would look like acknowledged ones.
        let mut stored = hard.stored;
        stored.truncate_from = index;
        stored.last_segment = kept.header.number;
        stored.public.durable = Index(index.0 - 1);
        hard.save(stored)?;
        self.shared.durable.store(index.0 - 1, Ordering::Release);
        self.shared.rolls.go_back_to(kept.header.number);
        self.shared.segments.write().truncate(place + 1);
        self.shared.open_files.lock().clear();
        self.shared
            .preparation
            .lock()
            .indexes
            .retain(|s| s.header.number < kept.header.number);
        let end = extent.end;
        *kept.extent.write() = extent;
        for segment in segments[place + 1..].iter().rev() {
            remove_segment(&*disk, &segment.name)?;
        }
        remove_if_there(&*disk, &index_name(&kept.name))?;
        disk.sync_folder()?;
        zero_rest(&*file, end)?;
        stored.truncate_from = Index::ZERO;
        hard.save(stored)?;
        Ok(())
    }
}
