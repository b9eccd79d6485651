-- Leaving and coming back.
CREATE TABLE t(id INTEGER PRIMARY KEY, a);
SELECT crsql_as_crr('t');
INSERT INTO t VALUES(1, 'x'), (2, 'y');
SELECT crsql_as_table('t');
SELECT count(*) FROM crsql_changes;
DELETE FROM t WHERE id = 2;
SELECT crsql_as_crr('t');
SELECT cid, val, col_version, cl FROM crsql_changes;
