//! The shortest way through a flush: a transaction that touched one row of a plain table once.
//!
//! It comes to what the general way makes of such a touch, without the lists that many touches need. Whatever is out of the
//! ordinary is left to that one.

use crate::journal::Touches;
use crate::log::LogWriter;
use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::local::{update_in_place, TouchKind};
use starling_crdt::log_chunk::Kind;
use starling_crdt::row_clock::RowClock;

/// A longer key may not fit into the record itself.
const SHORT_KEY: usize = 1024;

impl Session {
    /// Logs the one touch there is, if it is an insert that replaces nothing, or an update. Whether it was.
    pub fn flush_single(&self, touches: &Touches) -> Result<bool> {
        let Some(touch) = touches.get(0).filter(|_| touches.len() == 1) else { return Ok(false) };
        let (kind, key) = (touch.kind(), touches.key(touch));
        let usual = matches!(kind, TouchKind::Insert { replace: false, moved: false } | TouchKind::Update { .. });
        if !usual || key.len() > SHORT_KEY {
            return Ok(false);
        }
        let record = self.open_local()?;
        if !self.can_stay_young(touches, record.is_new())? || !self.is_plain(touch.table)? {
            return Ok(false);
        }
        let Some(table) = self.table(touch.table)?.filter(|table| !table.looks_older(key)) else { return Ok(false) };
        let mut writer = LogWriter::new(self, record);
        if let TouchKind::Update { word, mask } = kind {
            let mut columns = self.spare_columns.take();
            columns.clear();
            let mut delta = RowClock { cells: self.spare_cells(), ..RowClock::default() };
            update_in_place(&mut delta, (word, mask, touch.seq), &table.column_ids, record.stamp(), &mut columns);
            if delta.is_delta() {
                self.raise_format()?;
                let mut clock = Vec::with_capacity(24);
                delta.encode(&mut clock);
                writer.push(Kind::Mask, table.info.log_ref(), key, touch.seq, &columns)?;
                let mut fresh = self.spare_fresh.take();
                fresh.push((touch.table, key.to_vec(), clock));
                writer.carry_only(fresh);
            }
            self.keep_cells(delta.cells);
            self.spare_columns.set(columns);
        } else {
            writer.push(Kind::Base, table.info.log_ref(), key, touch.seq, &[])?;
        }
        let Some(record) = writer.finish_if_any()? else { return Ok(false) };
        self.tx_mut().local = Some(record);
        self.prune_some(0)?;
        Ok(true)
    }
}
