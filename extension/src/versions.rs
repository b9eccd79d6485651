//! The Lamport counter and the configuration, as SQL sees them.

use crate::session::Session;
use crate::sqlite::{Error, Result};
use crate::tx::TxState;
use starling_crdt::ids::{MAX_JUMP, MAX_VERSION};

impl Session {
    /// The last committed version, 0 in a fresh database.
    pub fn committed_version(&self) -> Result<u64> {
        if !self.has_schema()? {
            return Ok(0);
        }
        let open = self.tx.borrow().local.map(|r| r.db_version).or(self.tx.borrow().foreign.map(|r| r.db_version));
        let Some(open) = open else {
            return self.newest_version();
        };
        // What this transaction has written does not count yet.
        let first = self.tx.borrow().first_version.unwrap_or(open);
        self.newest_version_below(first)
    }

    /// The version that the open transaction will get, raised to at least `given`.
    ///
    /// # Errors
    /// A version so far away that the counter would soon be used up (X12).
    pub fn next_version(&self, given: u64) -> Result<u64> {
        let committed = self.committed_version()?;
        if given > committed.saturating_add(MAX_JUMP).min(MAX_VERSION) {
            return Err(Error::msg(format!("crsql_next_db_version: {given} is too far above {committed}")));
        }
        let pending = |tx: &TxState| tx.local.map_or(0, |r| r.db_version).max(tx.requested);
        let next = (committed + 1).max(pending(&self.tx.borrow()));
        if given > next && !self.db.is_autocommit() {
            // The transaction's first write must find it.
            self.join_transaction()?;
            // What was merged under the version before is logged under it.
            self.flush_nine()?;
            self.tx_mut().requested = given;
        }
        Ok(next.max(given))
    }

    /// Stores a setting.
    pub fn set_config(&self, name: &str, value: i64) -> Result<()> {
        self.ensure_schema()?;
        // A rollback must be told: the setting is remembered.
        self.join_transaction()?;
        let mut set = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('config.' || ?1, ?2)")?;
        set.bind_text(1, name)?;
        set.bind_int(2, value)?;
        set.execute()?;
        self.meta.replace(None);
        Ok(())
    }

    /// Whether `main` has a table of that name.
    pub fn is_table(&self, name: &str) -> Result<bool> {
        Ok(crate::schema::read(self.db, name)?.is_some())
    }
}
