-- STRICT tables (SQLite 3.37 and newer): what is stored has the column's type, and so has what is announced and merged.
CREATE TABLE s(id TEXT PRIMARY KEY NOT NULL, n INTEGER, r REAL, b BLOB, x ANY, d TEXT NOT NULL DEFAULT 'd') STRICT;
CREATE TABLE w(id INTEGER PRIMARY KEY, v INT) STRICT, WITHOUT ROWID;
SELECT crsql_as_crr('s'), crsql_as_crr('w');
INSERT INTO s(id, n, r, b, x) VALUES('k', '7', 1, x'00', '007'), ('l', NULL, 2.5, NULL, 1.0);
INSERT INTO w VALUES(1, 2);
UPDATE s SET x = x'ff', d = 'e' WHERE id = 'k';
UPDATE w SET v = '3';
INSERT OR REPLACE INTO s(id, n) VALUES('l', 9);
SELECT id, typeof(n), typeof(r), quote(b), quote(x), d FROM s ORDER BY id;
SELECT [table], quote(pk), cid, quote(val), col_version, db_version, cl, seq FROM crsql_changes;
-- From elsewhere: a text that the column's affinity makes an integer, and a row that is new here.
INSERT INTO crsql_changes VALUES('s', crsql_pack_columns('k'), 'n', '12', 5, 9, x'0a', 1, 0);
INSERT INTO crsql_changes VALUES('w', crsql_pack_columns(2), 'v', 8, 1, 10, x'0a', 1, 0);
SELECT n, typeof(n) FROM s WHERE id = 'k';
SELECT * FROM w ORDER BY id;
PRAGMA integrity_check;
