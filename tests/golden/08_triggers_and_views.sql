-- The application's own triggers on a CRR, with an untrusted schema.
PRAGMA trusted_schema = OFF;
CREATE TABLE t(id INTEGER PRIMARY KEY, a, touched);
CREATE TABLE audit(n INTEGER PRIMARY KEY, what);
SELECT crsql_as_crr('t'), crsql_as_crr('audit');
CREATE TRIGGER note AFTER INSERT ON t WHEN crsql_internal_sync_bit() = 0 BEGIN INSERT INTO audit(what) VALUES('insert ' || NEW.id); END;
CREATE VIEW v AS SELECT id, a FROM t;
CREATE TRIGGER into_v INSTEAD OF INSERT ON v BEGIN INSERT INTO t(id, a) VALUES(NEW.id, NEW.a); END;
INSERT INTO v VALUES(1, 'through the view');
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(2), 'a', 'remote', 1, 1, x'01', 1, 0);
SELECT * FROM t;
SELECT * FROM audit;
SELECT [table], cid, val FROM crsql_changes ORDER BY [table], pk, cid;
