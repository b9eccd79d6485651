-- Ties: type first, then value.
CREATE TABLE t(id INTEGER PRIMARY KEY, a);
SELECT crsql_as_crr('t');
INSERT INTO t VALUES(1, 'm'), (2, 5), (3, x'ff'), (4, NULL), (5, 1.5);
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 'n', 1, 1, x'01', 1, 0);
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), 'a', 'zzz', 1, 1, x'01', 1, 0);
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(3), 'a', 'a', 1, 1, x'01', 1, 0);
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(4), 'a', x'', 1, 1, x'01', 1, 0);
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(5), 'a', 1, 1, 1, x'01', 1, 0);
SELECT id, quote(a) FROM t;
