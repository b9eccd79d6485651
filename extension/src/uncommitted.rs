//! `PRAGMA read_uncommitted`: in a shared cache a connection may see what another one has not committed, and may roll back.
//!
//! What we remember from such a read would then be of a file that never was, and no counter of SQLite's tells of a rollback. So it
//! is good until the next look, and never for a write.

use crate::session::Session;
use crate::sqlite::Result;
use crate::young::Young;

impl Session {
    /// What is read from here on may never be committed, if this connection reads what others of a shared cache have not
    /// committed: then it is good until the next look.
    pub fn note_uncommitted(&self) -> Result<()> {
        // A connection that is being opened does not.
        if !self.loading.get() && self.int("PRAGMA read_uncommitted")? != 0 && self.db.is_writing("main") != Some(true)
        {
            self.reads_uncommitted.set(true);
        }
        Ok(())
    }

    /// Forgets what may never have been committed.
    pub fn forget_uncommitted(&self) {
        if self.reads_uncommitted.take() {
            self.meta.replace(None);
            self.known_tail.set(None);
            self.reread_refused();
            self.young.replace(Young::default());
            self.forget_catalog();
        }
    }
}
