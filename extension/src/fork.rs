//! A dot that was used twice (S1): commits were lost (a power cut, a restored backup, a machine set back), and their
//! numbers were given to other transactions before anybody noticed.
//!
//! The remedy gives a new name to what is held here. An origin's ordinal is what log, clocks and claims hold, so a new
//! epoch for that ordinal re-homes every dot of it at once, and what is claimed under the new name is just what is held.
//! Of the name that was used twice nothing is claimed any more, so the other history is taken from the peers, under whatever
//! name they hold it; what both have in common ties with it and makes no change.
//!
//! A name that its own site gave up is forsaken for good, by everybody: whoever holds anything under it gives that a new name too,
//! and nothing is taken under it any more. Two histories went by it, nodes that have taken only what lives of one of them cannot tell
//! which, and such a one would claim the numbers of the other without its transactions.

use crate::fnv;
use crate::meta::random_epoch;
use crate::session::{corrupt, Session};
use crate::sqlite::{Error, Result};
use starling_crdt::changeset::{DotHeader, Header};
use starling_crdt::ids::FORSAKEN;
use starling_crdt::record::Head;
use starling_crdt::{Origin, SiteId, Vector};

impl Session {
    /// Compares the head tokens of another vector with what is remembered here, and claims what contradicts: just the dot
    /// that is another transaction here, with its token here; token 0 where it is one of our own numbers that we gave to
    /// none; or the range from that number to the next dot here, with that one's token, where the number belongs to none; or, of a name that is forsaken, [`FORSAKEN`] in place of a token. Of the origins of `speaker`, whose vector it is, also those count of which more is claimed here than by itself
    /// and of which nothing can be compared: all from its head on, with token 0.
    pub fn forks(&self, vector: &Vector, speaker: Option<SiteId>) -> Result<Vector> {
        let mut forks = Vector::default();
        for (origin, state) in &vector.origins {
            let (Some(head), Some(ordinal)) = (state.claimed.max(), self.known_ordinal(origin)?) else { continue };
            if self.is_forsaken(ordinal)? {
                forks.claim(*origin, head, head, FORSAKEN);
                continue;
            }
            if state.head_token == 0 {
                continue;
            }
            let ours = self.token_of(ordinal, head)?;
            if ours != state.head_token && self.contradicts(ordinal, head, state.head_token)? {
                forks.claim(*origin, head, head, ours);
            } else if let Some((version, token)) = if ours == 0 { self.skips(ordinal, head)? } else { None } {
                forks.claim(*origin, head, version, token);
            } else if ours == 0 && speaker == Some(origin.site) {
                let newest = self.newest_claimed(ordinal)?;
                if newest > head {
                    forks.claim(*origin, head, newest, 0);
                }
            }
        }
        Ok(forks)
    }

    /// Re-homes the origins of which this vector tells a dot that is another transaction here. Returns how many.
    ///
    /// A site gives up a name of its own that it wrote under, but once only: what it holds under that name afterwards came
    /// from the peers. Of two other nodes the one whose token is smaller does; and whoever is told that its own site gave the name up.
    pub fn rehome(&self, vector: &Vector) -> Result<u64> {
        let mut renamed = 0;
        for (origin, state) in &vector.origins {
            let (Some(head), Some(ordinal)) = (state.claimed.max(), self.known_ordinal(origin)?) else { continue };
            let theirs = state.head_token;
            if origin.site == self.meta()?.site && !self.is_given_up(ordinal)? {
                let first = state.claimed.ranges().first().map_or(head, |range| range.0);
                if self.contradicts(ordinal, head, theirs)? || self.is_passed_over(ordinal, first, head, theirs)? {
                    self.rename(origin, ordinal, random_epoch(self))?;
                    self.forsake(origin)?;
                    renamed += 1;
                }
                continue;
            }
            if theirs == FORSAKEN {
                renamed += u64::from(self.leave(origin, ordinal)?);
                continue;
            }
            let ours = self.token_of(ordinal, head)?;
            if ours < theirs && (ours != 0 || self.skips(ordinal, head)?.is_some()) {
                self.rename(origin, ordinal, name_of(origin, head, ours))?;
                renamed += 1;
            }
        }
        Ok(renamed)
    }

    /// Whether a dot is another transaction here. Of this site's own newer dots every token is known, so a number that was never
    /// used here contradicts too; and so does a peer that has newer ones and cannot tell whether ours are the same (`theirs`
    /// is 0).
    fn contradicts(&self, ordinal: u32, version: u64, theirs: u64) -> Result<bool> {
        match (theirs, self.token_of(ordinal, version)?) {
            (0, _) => Ok(self.newest_own(ordinal)? > 0 && version > self.newest_claimed(ordinal)?),
            (_, 0) => Ok(version <= self.newest_own(ordinal)? && version > self.thinned_to(ordinal)?),
            (theirs, ours) => Ok(theirs != ours),
        }
    }

    /// Whether in another history, which goes on beyond ours with the dot `next`, the number `version` belongs to none, although it is
    /// one of our own dots.
    fn is_passed_over(&self, ordinal: u32, version: u64, next: u64, token: u64) -> Result<bool> {
        if version >= next
            || token == 0
            || next <= self.newest_claimed(ordinal)?
            || version > self.newest_own(ordinal)?
        {
            return Ok(false);
        }
        Ok(self.token_of(ordinal, version)? != 0)
    }

    /// Gives what is held under a name that its site gave up a name of its own. Whether anything was.
    fn leave(&self, origin: &Origin, ordinal: u32) -> Result<bool> {
        let head = self.newest_claimed(ordinal)?;
        if self.is_vacant(ordinal)? {
            self.forget_claims(ordinal)?;
            self.forsake(origin)?;
            return Ok(head > 0);
        }
        // Of those who cannot tell which history they hold, or hold some of both, each has a name for it.
        let token = self.token_of(ordinal, head)?;
        let mut name = random_epoch(self);
        let whole = token != 0 && self.is_claimed_whole(ordinal, head)?;
        let shared = whole.then(|| name_of(origin, head, token));
        if let Some(shared) = shared {
            let known = self.known_ordinal(&Origin { epoch: shared.cast_unsigned(), ..*origin })?;
            match known {
                None => name = shared,
                // That history has come from others already, and all of it tied with what is held here, which takes its place.
                Some(known) if self.is_vacant(known)? => {
                    self.vacate(known)?;
                    name = shared;
                }
                Some(_) => {}
            }
        }
        self.rename(origin, ordinal, name)?;
        self.forsake(origin)?;
        if shared != Some(name) {
            self.claim_carried(ordinal)?;
        }
        Ok(true)
    }

    /// Claims what is carried under a name that nobody else has: there is no more of it anywhere, and as long as something is carried
    /// vectors stay unequal.
    fn claim_carried(&self, ordinal: u32) -> Result<()> {
        let mut newest = self.fixed("SELECT max(version) FROM main.crsql_carried WHERE origin = ?1")?;
        newest.bind_int(1, i64::from(ordinal))?;
        newest.step()?;
        let newest = newest.column_int(0).max(0).cast_unsigned();
        if newest == 0 {
            return Ok(());
        }
        let head = newest.max(self.newest_claimed(ordinal)?);
        let token = self.token_of(ordinal, head)?;
        self.claim(ordinal, 1, head, token)
    }

    /// Whether nothing lives here under a name: what was taken under it tied with what is held under others.
    fn is_vacant(&self, ordinal: u32) -> Result<bool> {
        Ok(self.foreign_after(ordinal, 0)?.is_none() && self.newest_own(ordinal)? == 0)
    }

    /// Claims nothing under a name any more.
    fn forget_claims(&self, ordinal: u32) -> Result<()> {
        for forget in
            ["DELETE FROM main.crsql_claim WHERE origin = ?1", "DELETE FROM main.crsql_carried WHERE origin = ?1"]
        {
            let mut forget = self.fixed(forget)?;
            forget.bind_int(1, i64::from(ordinal))?;
            forget.execute()?;
        }
        Ok(())
    }

    /// Makes room under a name for another ordinal.
    fn vacate(&self, ordinal: u32) -> Result<()> {
        self.forget_claims(ordinal)?;
        self.rename_ordinal(ordinal, random_epoch(self))
    }

    /// Whether all up to its head is claimed of an origin.
    fn is_claimed_whole(&self, ordinal: u32, head: u64) -> Result<bool> {
        let mut whole = self.fixed("SELECT 1 FROM main.crsql_claim WHERE origin = ?1 AND lo <= 1 AND hi = ?2")?;
        whole.bind_int(1, i64::from(ordinal))?;
        whole.bind_int(2, head.cast_signed())?;
        whole.step()
    }

    /// From now on nothing is taken under this name.
    fn forsake(&self, origin: &Origin) -> Result<()> {
        let ordinal = self.ordinal(origin)?;
        self.set_note(&format!("forsaken.{ordinal}"), "1")
    }

    /// Whether a name was given up by its own site.
    pub fn is_forsaken(&self, ordinal: u32) -> Result<bool> {
        Ok(self.noted(&format!("forsaken.{ordinal}"))?.is_some())
    }

    /// Refuses a changeset that cannot belong to the history that is claimed here: its own dot or its predecessor is another
    /// transaction here, or there is one between the two.
    pub fn check_history(&self, origin: u32, header: &Header) -> Result<()> {
        let DotHeader { dot, token, prev, prev_token, .. } = header.dot;
        if self.is_forsaken(origin)? {
            return Err(self.forked(origin, dot.version));
        }
        for (version, theirs) in [(dot.version, token), (prev, prev_token)] {
            // Most dots that arrive are new: the cheap question first.
            if theirs == 0 || version == 0 || !self.is_claimed(origin, version)? {
                continue;
            }
            let ours = self.token_of(origin, version)?;
            if ours != 0 && ours != theirs {
                return Err(self.forked(origin, version));
            }
        }
        if header.claimable && prev + 1 < dot.version {
            if let Some(between) = self.known_between(origin, prev, dot.version)? {
                return Err(self.forked(origin, between));
            }
        }
        Ok(())
    }

    /// A claimed dot between two versions of which a token is known.
    fn known_between(&self, origin: u32, above: u64, below: u64) -> Result<Option<u64>> {
        for version in self.dots_between(origin, above, below)? {
            if self.is_claimed(origin, version)? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// What is said of a dot that is another transaction here.
    pub fn forked(&self, ordinal: u32, version: u64) -> Error {
        let Ok((origin, _)) = self.origin_of(ordinal) else { return corrupt("crsql_origin", "an ordinal is missing") };
        Error::msg(format!(
            "starling: forked history: site {} epoch {:016x} used version {version} twice (lost commits, a restored backup or \
             a copied file); starling_rehome() gives one of the two histories a name of its own",
            origin.site, origin.epoch
        ))
    }

    /// The next dot held after this number and its token, if by its predecessor the number belongs to no dot of the history
    /// that is held here.
    fn skips(&self, ordinal: u32, version: u64) -> Result<Option<(u64, u64)>> {
        let Some(next) = self.foreign_after(ordinal, version)? else { return Ok(None) };
        let Head { prev, token, .. } = next.head;
        let after = next.version;
        // A dot that is known by name only tells no predecessor.
        let skips = prev != 0 && prev < version && self.is_claimed(ordinal, after)?;
        Ok(skips.then_some((after, token)))
    }

    /// The newest dot of this database's own under an ordinal, not what it took back from peers; 0 = none.
    fn newest_own(&self, ordinal: u32) -> Result<u64> {
        if ordinal == self.meta()?.origin {
            return Ok(self.tail()?.last_local);
        }
        let mut find = self.fixed("SELECT value FROM main.crsql_master WHERE key = 'own.' || ?1")?;
        find.bind_int(1, i64::from(ordinal))?;
        Ok(if find.step()? { find.column_int(0).max(0).cast_unsigned() } else { 0 })
    }

    /// Notes, at the end of an epoch, how far it went here.
    pub fn note_own(&self, ordinal: u32, newest: u64) -> Result<()> {
        let mut note = self.fixed("INSERT OR REPLACE INTO main.crsql_master(key, value) VALUES('own.' || ?1, ?2)")?;
        note.bind_int(1, i64::from(ordinal))?;
        note.bind_int(2, newest.cast_signed())?;
        note.execute()
    }

    /// The newest claimed dot of an origin; 0 = none.
    fn newest_claimed(&self, ordinal: u32) -> Result<u64> {
        let present = if ordinal == self.meta()?.origin { self.tail()?.last_local } else { 0 };
        let mut newest = self.fixed("SELECT hi FROM main.crsql_claim WHERE origin = ?1 ORDER BY lo DESC LIMIT 1")?;
        newest.bind_int(1, i64::from(ordinal))?;
        newest.step()?;
        Ok(present.max(newest.column_int(0).max(0).cast_unsigned()))
    }

    fn is_given_up(&self, ordinal: u32) -> Result<bool> {
        Ok(self.noted(&format!("given_up.{ordinal}"))?.is_some())
    }

    /// Gives what is held under a name another one. The former one is given up.
    fn rename(&self, origin: &Origin, ordinal: u32, mut epoch: i64) -> Result<()> {
        while self.known_ordinal(&Origin { epoch: epoch.cast_unsigned(), ..*origin })?.is_some() {
            epoch = epoch.wrapping_add(1);
        }
        self.rename_ordinal(ordinal, epoch)?;
        let fresh = self.ordinal(origin)?;
        let mut mark = self.fixed("INSERT INTO main.crsql_master(key, value) VALUES('given_up.' || ?1, 1)")?;
        mark.bind_int(1, i64::from(fresh))?;
        mark.execute()
    }

    fn rename_ordinal(&self, ordinal: u32, epoch: i64) -> Result<()> {
        let mut rename = self.fixed("UPDATE main.crsql_origin SET epoch = ?2 WHERE ordinal = ?1")?;
        rename.bind_int(1, i64::from(ordinal))?;
        rename.bind_int(2, epoch)?;
        rename.execute()?;
        drop(rename);
        self.meta.replace(None);
        self.forget_tail();
        Ok(())
    }
}

/// All who hold this history find the same name for it, and have nothing to send to each other.
fn name_of(origin: &Origin, head: u64, token: u64) -> i64 {
    [origin.epoch, head, token].iter().fold(fnv::START, |h, n| fnv::feed(h, &n.to_le_bytes())).cast_signed()
}
