//! Sites by their rows in `crsql_site`, which stamps name.
//!
//! An id has 16 bytes. Nine values may give a shorter one: it stands for the id that zeros make of it, and is stored, and shown,
//! as it was given.

use crate::session::{corrupt, Session};
use crate::sqlite::Result;
use starling_crdt::SiteId;

/// A site id as it is shown.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct ShownSite {
    id: SiteId,
    len: usize,
}

impl ShownSite {
    /// As many bytes as it was given with.
    pub fn as_slice(&self) -> &[u8] {
        self.id.0.get(..self.len).unwrap_or(&self.id.0)
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let id = SiteId::from_slice(bytes).ok_or_else(|| corrupt("crsql_site", "an id is too long"))?;
        Ok(Self { id, len: bytes.len() })
    }
}

impl From<SiteId> for ShownSite {
    fn from(id: SiteId) -> Self {
        Self { id, len: id.0.len() }
    }
}

impl Session {
    /// The row of a site in `crsql_site`, made if it is new.
    pub fn site_row(&self, site: &SiteId) -> Result<u32> {
        match self.author(site)? {
            0 => Ok(self.meta()?.site_row),
            row => Ok(row),
        }
    }

    /// The number by which stamps name a site as an author under this site's dots: its row, or 0 where it is this very site.
    pub fn author(&self, site: &SiteId) -> Result<u32> {
        self.author_given_as(site, &site.0)
    }

    /// The same; if it is new, it is to be shown as given.
    pub fn author_given_as(&self, site: &SiteId, given: &[u8]) -> Result<u32> {
        // Merges name one site many times in a row. Rows of this table are never removed but by a rollback, which
        // forgets the state that this is part of.
        if let Some((_, row)) = self.tx.borrow().last_site.as_ref().filter(|(known, _)| known == site) {
            return Ok(*row);
        }
        if *site == self.meta()?.site {
            return Ok(0);
        }
        let row = match self.find_site(site)? {
            Some(row) => row,
            None => self.add_site(given)?,
        };
        let mut tx = self.tx_mut();
        if tx.active {
            tx.last_site = Some((*site, row));
        }
        Ok(row)
    }

    /// The row of a site, if it has one.
    pub fn find_site(&self, site: &SiteId) -> Result<Option<u32>> {
        let mut find = self.fixed("SELECT id FROM main.crsql_site WHERE site_id = ?1")?;
        let zeros = site.0.iter().rev().take_while(|byte| **byte == 0).count();
        let shortest = (site.0.len() - zeros).max(1);
        for len in (shortest..=site.0.len()).rev() {
            find.bind_blob(1, site.0.get(..len).unwrap_or_default())?;
            if find.step()? {
                return u32::try_from(find.column_int(0)).map(Some).map_err(|e| corrupt("crsql_site", e));
            }
            find.reset();
        }
        Ok(None)
    }

    fn add_site(&self, given: &[u8]) -> Result<u32> {
        let mut add = self.fixed("INSERT INTO main.crsql_site(site_id) VALUES(?1)")?;
        add.bind_blob(1, given)?;
        add.execute()?;
        u32::try_from(self.db.last_insert_rowid()).map_err(|e| corrupt("crsql_site", e))
    }

    /// The site id of a row of `crsql_site`.
    pub fn site_of_row(&self, row: u32) -> Result<SiteId> {
        self.shown_site(row).map(|shown| shown.id)
    }

    /// The same, as it is shown.
    pub fn shown_site(&self, row: u32) -> Result<ShownSite> {
        let meta = self.meta()?;
        if row == meta.site_row {
            return Ok(meta.site.into());
        }
        let mut find = self.fixed("SELECT site_id FROM main.crsql_site WHERE id = ?1")?;
        find.bind_int(1, i64::from(row))?;
        if !find.step()? {
            return Err(corrupt("crsql_site", format!("row {row} is missing")));
        }
        ShownSite::read(find.column_blob(0))
    }
}
