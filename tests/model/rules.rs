//! The protocol's decisions as switches: `Rules::SOUND` is what Starling does, every other setting is a mistake that the
//! checker has to find (a *mutant*).

/// Under which dot a merge logs a cell that it accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CellLog {
    /// Under the dot that the cell carries, whichever changeset brought it (E1).
    OwnDot,
    /// Mistake: under the dot of the changeset that brought it.
    ChangesetDot,
    /// Mistake: a cell that came along with another dot's changeset is not logged at all.
    Nowhere,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Mistake (X1): a thinned changeset is claimed at once.
    pub claim_thinned: bool,
    pub cell_log: CellLog,
    /// Base entries are served as the whole row (X4).
    pub whole_base: bool,
    /// Mistake (X8): after lost commits the site goes on in the old epoch.
    pub reuse_dots: bool,
    /// Mistake: the sender's vector is taken over after a part of its answer.
    pub claim_partial: bool,
    /// Mistake: a base none of whose own cells live is pruned though its lifetime lasts.
    pub prune_living_base: bool,
    /// A choice, sound either way: true if a merge logs only what it accepted, and therefore calls the record intact only
    /// where nothing that the dot named lost or tied on arrival. False: losers are logged too (as entries dead from birth).
    pub winners_only: bool,
    /// Mistake: a record counts as intact where the merge dropped the names of cells that lost on arrival.
    pub forget_losers: bool,
    /// Mistake: a base that came second is remembered as a mask only, and covered by cells without the birth.
    pub forget_second_base: bool,
    /// Mistake: a record made of thinned changesets counts as intact once its dot is claimed and nothing was pruned here.
    pub trust_thinned: bool,
    /// Mistake: the sender encodes each dot of an answer from the state of that moment, not from one snapshot.
    pub no_snapshot: bool,
    /// Mistake: an answer that was on its way before a power cut shrank the asker's vector is still applied after it.
    pub answer_survives_cut: bool,
    /// Mistake: what is kept aside for a later lifetime leaves the row of the earlier one visible.
    pub keep_shown: bool,
    /// A tie with a dot that is not claimed is logged as that dot's alias (X2).
    pub alias_ties: bool,
    /// I1 is checked too (off for mutants that break it by definition, to see the damage instead).
    pub check_log: bool,
}

impl Rules {
    pub const SOUND: Rules = Rules {
        claim_thinned: false,
        cell_log: CellLog::OwnDot,
        whole_base: true,
        reuse_dots: false,
        claim_partial: false,
        prune_living_base: false,
        winners_only: false,
        forget_losers: false,
        forget_second_base: false,
        trust_thinned: false,
        no_snapshot: false,
        answer_survives_cut: false,
        keep_shown: false,
        alias_ties: true,
        check_log: true,
    };
}
