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
    /// As native, with triggers besides that look for the row in an insert's way: how often a cell was written is known where a
    /// REPLACE writes it, too.
    Exact,
    /// Triggers in plain SQL that write to an inbox, which is drained by whoever has the extension.
    Portable,
}

impl Capture {
    /// By the name that `crsql_as_crr` takes.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "native" => Some(Self::Native),
            "exact" => Some(Self::Exact),
            "portable" => Some(Self::Portable),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Exact => "exact",
            Self::Portable => "portable",
        }
    }
}

impl Session {
    /// The way of capture of a table.
    pub fn capture_of(&self, table: u32) -> Result<Capture> {
        let name = self.table_note("capture", table)?;
        Ok(name.and_then(|name| Capture::named(&name)).unwrap_or_default())
    }

    /// The tables whose way of capture is an inbox.
    pub fn captured_by_inbox(&self) -> Result<Vec<u32>> {
        let portable = Capture::Portable.name();
        Ok(self.tables_noted("capture")?.into_iter().filter(|(_, name)| name == portable).map(|(id, _)| id).collect())
    }

    pub fn set_capture(&self, table: u32, capture: Capture) -> Result<()> {
        match capture {
            Capture::Native => self.drop_table_note("capture", table),
            Capture::Exact | Capture::Portable => self.set_table_note("capture", table, capture.name()),
        }
    }

    /// A table with what its way of capture asks of its triggers, and where they write.
    pub fn captured(&self, info: &TableInfo) -> Result<(TableInfo, Sink)> {
        let (mut info, capture) = (info.clone(), self.capture_of(info.id)?);
        info.tells_overwritten |= capture == Capture::Exact;
        let sink = match capture {
            Capture::Native | Capture::Exact => Sink::Journal(self.meta()?.file),
            Capture::Portable => Sink::Inbox,
        };
        Ok((info, sink))
    }

    /// Notes the way of capture, and makes the inbox that it needs, empty. An inbox that is not needed any more stays, empty:
    /// other connections have triggers on it, and could rename nothing in the file if it went away.
    pub fn make_inbox(&self, info: &TableInfo, capture: Capture) -> Result<()> {
        self.take_up()?;
        self.set_capture(info.id, capture)?;
        let inbox = inbox_name(info.id);
        if self.inbox_fits(info)? || (capture != Capture::Portable && self.has_inbox(info.id)?) {
            return self.db.exec(&format!("DELETE FROM main.{inbox}"));
        }
        if capture == Capture::Portable {
            self.db.exec(&format!("DROP TABLE IF EXISTS main.{inbox}"))?;
            self.db.exec(&crate::inbox::create(info))?;
        }
        Ok(())
    }

    fn has_inbox(&self, table: u32) -> Result<bool> {
        self.db.prepare_transient(&format!("PRAGMA main.table_info({})", inbox_name(table)))?.step()
    }

    /// A table is let go: its inbox is emptied, and every trigger that writes to it is dropped, whatever table that stands on
    /// by now.
    pub fn retire_inbox(&self, table: u32) -> Result<()> {
        self.take_up()?;
        self.set_capture(table, Capture::Native)?;
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
        if self.has_inbox(table)? {
            self.db.exec(&format!("DELETE FROM main.{}", inbox_name(table)))?;
        }
        Ok(())
    }

    /// SQLite tells an extension of a commit only where a virtual table of its takes part in it. A temporary trigger on each
    /// inbox, which other connections do not see, makes the journal take part: so a connection that has the extension gives
    /// its own writes their version in their own transaction. Where it cannot be made, they wait for the next drain like
    /// everybody's.
    pub fn join_when_inboxes_fill(&self) -> Result<()> {
        if self.has_schema()? {
            self.join(self.captured_by_inbox()?)?;
        }
        Ok(())
    }

    /// What is asked first of all when a connection is opened, in one question: if catalogue and triggers agree with the schema,
    /// as it stands, joins the inboxes. Whether they do.
    pub fn join_if_noted(&self, schema: i64) -> Result<bool> {
        let (mut noted, mut portable) = (None, Vec::new());
        {
            let mut all = self.db.prepare_transient(
                "SELECT key, value FROM main.crsql_master WHERE key BETWEEN 'capture.' AND 'schema'",
            )?;
            while all.step()? {
                let key = all.column_text(0);
                if key == b"schema" {
                    noted = Some(all.column_int(1));
                } else if let Some(id) = key.strip_prefix(b"capture.") {
                    if all.column_text(1) == Capture::Portable.name().as_bytes() {
                        portable.extend(schema::text(id).parse::<u32>());
                    }
                }
            }
        }
        let agrees = noted == Some(schema);
        if agrees {
            self.join(portable)?;
        }
        Ok(agrees)
    }

    fn join(&self, tables: Vec<u32>) -> Result<()> {
        for table in tables {
            if !self.has_inbox(table)? {
                continue;
            }
            let inbox = inbox_name(table);
            self.db.exec(&format!(
                "CREATE TEMP TRIGGER IF NOT EXISTS {inbox}_join AFTER INSERT ON main.{inbox} BEGIN \
                 INSERT INTO {JOURNAL}(tag) VALUES(0); END"
            ))?;
        }
        Ok(())
    }
}
