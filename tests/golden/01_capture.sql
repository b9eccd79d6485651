-- Every kind of write, and what it leaves in crsql_changes.
CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b);
SELECT crsql_as_crr('t');
INSERT INTO t VALUES('k', 1, 'one'), ('l', 2, 'two');
UPDATE t SET a = 10 WHERE id = 'k';
UPDATE t SET a = 10 WHERE id = 'k';
DELETE FROM t WHERE id = 'l';
INSERT INTO t VALUES('l', 3, 'three');
SELECT [table], quote(pk), cid, quote(val), col_version, db_version, site_id = crsql_site_id(), cl, seq FROM crsql_changes;
SELECT crsql_db_version(), crsql_next_db_version();
