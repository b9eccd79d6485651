-- Composite, blob, WITHOUT ROWID and key-only tables; a key update is a delete and an insert.
CREATE TABLE c(x INTEGER NOT NULL, y BLOB NOT NULL, v, PRIMARY KEY(x, y)) WITHOUT ROWID;
CREATE TABLE o(id INTEGER PRIMARY KEY);
SELECT crsql_as_crr('c'), crsql_as_crr('o');
INSERT INTO c VALUES(-1, x'00ff', 'a'), (9223372036854775807, x'', 'b');
INSERT INTO o VALUES(1), (200), (65535);
UPDATE c SET x = 5 WHERE x = -1;
DELETE FROM o WHERE id = 200;
SELECT [table], quote(pk), cid, val, col_version, db_version, cl, seq FROM crsql_changes;
