//! Tokens of dots, which tell one that was used twice (S1). They outlive the log records, but not for good: of each origin the
//! newest of them are kept. What is older is known to whoever was there within thousands of transactions, and a comparison with
//! somebody who was not can then not be made.

use crate::session::Session;
use crate::sqlite::Result;
use starling_crdt::changeset::DotHeader;

/// So many tokens without a record are kept of each origin: a few hundred kilobytes.
pub const KEPT: i64 = 16 * 1024;
/// One in so many that are added looks whether there are too many: to count them costs as much as adding a hundred.
const LOOK_EVERY: u64 = 1024;
/// So many go at once, as somebody's commit waits for it: more than come until the next look.
const AT_ONCE: i64 = 4 * 1024;

impl Session {
    /// The token of a dot as far as it is remembered; 0 = not known.
    pub fn token_of(&self, origin: u32, version: u64) -> Result<u64> {
        if let Some(record) = self.records_of(origin, version)?.first() {
            return Ok(record.head.token);
        }
        let mut find = self.fixed(
            "SELECT token FROM main.crsql_token WHERE origin = ?1 AND version = ?2 UNION ALL \
             SELECT token FROM main.crsql_claim WHERE origin = ?1 AND hi = ?2 AND \
             lo = (SELECT max(lo) FROM main.crsql_claim WHERE origin = ?1 AND lo <= ?2)",
        )?;
        find.bind_int(1, i64::from(origin))?;
        find.bind_int(2, version.cast_signed())?;
        while find.step()? {
            if find.column_int(0) != 0 {
                return Ok(find.column_int(0).cast_unsigned());
            }
        }
        drop(find);
        // The next one that has a record may name it as its predecessor.
        let next = self.foreign_after(origin, version)?.filter(|next| next.head.prev == version);
        Ok(next.map_or(0, |next| next.head.prev_token))
    }

    /// Remembers the token of a dot that has no record (any more).
    pub fn keep_token(&self, origin: u32, version: u64, token: u64) -> Result<()> {
        let mut keep =
            self.fixed("INSERT OR REPLACE INTO main.crsql_token(origin, version, token) VALUES(?1, ?2, ?3)")?;
        keep.bind_int(1, i64::from(origin))?;
        keep.bind_int(2, version.cast_signed())?;
        keep.bind_int(3, token.cast_signed())?;
        keep.execute()?;
        drop(keep);
        if self.token().is_multiple_of(LOOK_EVERY) {
            self.thin_tokens_of(i64::from(origin))?;
        }
        Ok(())
    }

    /// As [`Session::keep_token`], for the predecessor of a dot that left no record: nothing else tells it where it left none either.
    pub fn keep_token_before(&self, origin: u32, dot: &DotHeader) -> Result<()> {
        if dot.prev == 0 || dot.prev_token == 0 || self.token_of(origin, dot.prev)? != 0 {
            return Ok(());
        }
        self.keep_token(origin, dot.prev, dot.prev_token)
    }

    /// Forgets the tokens of every origin that are more than are kept.
    pub fn thin_tokens(&self) -> Result<()> {
        let mut origins = Vec::new();
        {
            let mut all = self.fixed("SELECT ordinal FROM main.crsql_origin")?;
            while all.step()? {
                origins.push(all.column_int(0));
            }
        }
        for origin in origins {
            while self.thin_tokens_of(origin)? {}
        }
        Ok(())
    }

    /// Forgets some of an origin's oldest tokens, if there are more than are kept. Whether there were.
    fn thin_tokens_of(&self, origin: i64) -> Result<bool> {
        let mut newest = self
            .fixed("SELECT version FROM main.crsql_token WHERE origin = ?1 ORDER BY version DESC LIMIT 1 OFFSET ?2")?;
        newest.bind_int(1, origin)?;
        newest.bind_int(2, KEPT)?;
        if !newest.step()? {
            return Ok(false);
        }
        let newest = newest.column_int(0);
        let mut some =
            self.fixed("SELECT version FROM main.crsql_token WHERE origin = ?1 ORDER BY version LIMIT 1 OFFSET ?2")?;
        some.bind_int(1, origin)?;
        some.bind_int(2, AT_ONCE)?;
        let last = if some.step()? { newest.min(some.column_int(0)) } else { newest };
        drop(some);
        let mut thin = self.fixed("DELETE FROM main.crsql_token WHERE origin = ?1 AND version <= ?2")?;
        thin.bind_int(1, origin)?;
        thin.bind_int(2, last)?;
        thin.execute()?;
        drop(thin);
        let mut note =
            self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('thinned.' || ?1, ?2)")?;
        note.bind_int(1, origin)?;
        note.bind_int(2, last)?;
        note.execute()?;
        Ok(true)
    }

    /// Up to this version tokens of an origin may have been forgotten; 0 = none was.
    pub fn thinned_to(&self, origin: u32) -> Result<u64> {
        let mut find = self.fixed("SELECT value FROM main.crsql_master WHERE key = 'thinned.' || ?1")?;
        find.bind_int(1, i64::from(origin))?;
        Ok(if find.step()? { find.column_int(0).max(0).cast_unsigned() } else { 0 })
    }
}
