-- REPLACE keeps the lifetime; UPSERT is an update where the row is there.
CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
SELECT crsql_as_crr('t');
INSERT INTO t VALUES(1, 'x', 'y');
REPLACE INTO t VALUES(1, 'p', 'q');
INSERT INTO t VALUES(1, 'u', 'v') ON CONFLICT(id) DO UPDATE SET a = excluded.a;
INSERT OR IGNORE INTO t VALUES(1, 'ignored', 'ignored');
SELECT cid, val, col_version, db_version, cl, seq FROM crsql_changes;
