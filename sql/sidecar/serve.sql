-- The answer to a peer: the parts of every changeset that holds something the peer does not claim, in log order.
-- ?1: the peer's version vector.
SELECT changeset FROM starling_changesets(?1, NULL)
