-- What is rolled back leaves no trace; a transaction sees its own changes.
CREATE TABLE t(id INTEGER PRIMARY KEY, a);
SELECT crsql_as_crr('t');
BEGIN;
INSERT INTO t VALUES(1, 'kept');
SAVEPOINT s;
INSERT INTO t VALUES(2, 'gone');
SELECT count(*) FROM crsql_changes;
ROLLBACK TO s;
SELECT count(*) FROM crsql_changes;
INSERT INTO t VALUES(3, 'kept too');
COMMIT;
BEGIN;
DELETE FROM t;
ROLLBACK;
SELECT cid, val, db_version, seq FROM crsql_changes;
SELECT crsql_db_version();
