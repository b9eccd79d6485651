//! Portable capture: the way of capture of a table, its inbox as a part of the schema, and the trigger by which a connection
//! that has the extension gives a version to its own writes at its own commit.

use crate::inbox::inbox_name;
use crate::schema::{self, TableInfo};
use crate::session::Session;
use crate::sqlgen::{Ident, Sink, JOURNAL};
use crate::sqlite::Result;

/// How the writes of a CRR are noticed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Capture {
    /// Triggers that write to the journal: every writer needs the extension.
    #[default]
    Native,
    /// Triggers in plain SQL that write to an inbox, which is drained by whoever has the extension.
    Portable,
}

impl Capture {
    /// By the name that `crsql_as_crr` takes.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "native" => Some(Self::Native),
            "portable" => Some(Self::Portable),
            _ => None,
        }
    }
}

impl Session {
    /// The way of capture of a table: one that has an inbox is portable.
    pub fn capture_of(&self, table: u32) -> Result<Capture> {
        let mut find =
            self.db.prepare_transient("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1")?;
        find.bind_text(1, inbox_name(table))?;
        Ok(if find.step()? { Capture::Portable } else { Capture::Native })
    }

    /// Where a table's triggers write.
    pub fn sink_of(&self, table: u32) -> Result<Sink> {
        Ok(match self.capture_of(table)? {
            Capture::Native => Sink::Journal(self.meta()?.file),
            Capture::Portable => Sink::Inbox,
        })
    }

    /// Makes the inbox that a way of capture needs, empty; without need drops the one that is there.
    pub fn make_inbox(&self, info: &TableInfo, capture: Capture) -> Result<()> {
        if capture == Capture::Portable && self.inbox_fits(info)? {
            return self.db.exec(&format!("DELETE FROM main.{}", inbox_name(info.id)));
        }
        self.drop_inbox(info.id)?;
        if capture == Capture::Portable {
            self.db.exec(&crate::inbox::create(info))?;
        }
        Ok(())
    }

    /// Drops a table's inbox and every trigger that writes to it, whatever table that stands on by now: a program without the
    /// extension may have renamed it.
    pub fn drop_inbox(&self, table: u32) -> Result<()> {
        let inbox = inbox_name(table);
        let mut names = Vec::new();
        {
            let mut all = self.db.prepare_transient(
                "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND instr(sql, ?1) > 0",
            )?;
            all.bind_text(1, crate::inbox::into_inbox(table))?;
            while all.step()? {
                names.push(schema::text(all.column_text(0)));
            }
        }
        for name in names {
            self.db.exec(&format!("DROP TRIGGER main.{}", Ident(&name)))?;
        }
        self.db.exec(&format!("DROP TABLE IF EXISTS main.{inbox}"))
    }

    /// SQLite tells an extension of a commit only where a virtual table of its takes part in it. A temporary trigger on each
    /// inbox, which other connections do not see, makes the journal take part: so a connection that has the extension gives
    /// its own writes their version in their own transaction. Where it cannot be made, they wait for the next drain like
    /// everybody's.
    pub fn join_when_inboxes_fill(&self) -> Result<()> {
        if !self.has_schema()? {
            return Ok(());
        }
        for inbox in self.inboxes()?.into_iter().map(inbox_name) {
            self.db.exec(&format!(
                "CREATE TEMP TRIGGER IF NOT EXISTS {inbox}_join AFTER INSERT ON main.{inbox} BEGIN \
                 INSERT INTO {JOURNAL}(tag) VALUES(0); END"
            ))?;
        }
        Ok(())
    }

    /// The tables that have an inbox.
    pub fn inboxes(&self) -> Result<Vec<u32>> {
        let mut all = self.db.prepare_transient(
            "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name LIKE 'crsql\\_inbox\\_%' ESCAPE '\\'",
        )?;
        let mut ids = Vec::new();
        while all.step()? {
            let name = schema::text(all.column_text(0));
            ids.extend(name.strip_prefix("crsql_inbox_").and_then(|id| id.parse::<u32>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}
