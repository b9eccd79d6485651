-- Changes from elsewhere, a cell at a time.
CREATE TABLE t(id INTEGER PRIMARY KEY, a, b DEFAULT 'd');
SELECT crsql_as_crr('t');
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 'remote', 3, 4, x'0102030405060708090a0b0c0d0e0f10', 1, 7);
SELECT * FROM t;
SELECT cid, val, col_version, db_version, quote(site_id), cl, seq FROM crsql_changes;
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), 'a', 'older', 2, 9, x'0102030405060708090a0b0c0d0e0f10', 1, 0);
SELECT a, crsql_db_version() FROM t;
UPDATE t SET a = 'local';
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(1), '-1', NULL, 2, 5, x'0102030405060708090a0b0c0d0e0f10', 2, 0);
SELECT count(*) FROM t;
SELECT cid, val, col_version, cl FROM crsql_changes;
