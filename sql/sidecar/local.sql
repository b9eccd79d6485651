-- What applications committed here since the log record ?1: the parts of their changesets, in log order.
SELECT changeset FROM starling_changesets(NULL, ?1) WHERE local = 1
