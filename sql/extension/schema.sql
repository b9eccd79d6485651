-- The extension's tables (docs/FORMAT.md describes every column and blob). SQLite 3.8 syntax only: an older library that
-- opens the file must still be able to read its schema.
CREATE TABLE IF NOT EXISTS crsql_master(key TEXT PRIMARY KEY, value);
CREATE TABLE IF NOT EXISTS crsql_site(id INTEGER PRIMARY KEY, site_id BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS crsql_origin(
  ordinal INTEGER PRIMARY KEY, site INTEGER NOT NULL, epoch INTEGER NOT NULL, UNIQUE(site, epoch));
CREATE VIEW IF NOT EXISTS crsql_site_id AS
  SELECT CAST(CASE WHEN s.id = m.value THEN 0 ELSE s.id - (s.id > m.value) END AS INTEGER) AS ordinal,
    s.site_id AS site_id FROM crsql_site AS s, crsql_master AS m WHERE m.key = 'self' ORDER BY 1;
CREATE TABLE IF NOT EXISTS crsql_record(db_version INTEGER PRIMARY KEY, record BLOB NOT NULL);
-- Builds that know no format 4 look for this name, and must find it, or they take the file for one without any CRR.
CREATE VIEW IF NOT EXISTS crsql_log AS SELECT db_version, record FROM crsql_record;
CREATE TABLE IF NOT EXISTS crsql_foreign(
  origin INTEGER NOT NULL, version INTEGER NOT NULL, db_version INTEGER NOT NULL, PRIMARY KEY(origin, version, db_version))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_log_chunk(
  db_version INTEGER NOT NULL, n INTEGER NOT NULL, entries BLOB NOT NULL, UNIQUE(db_version, n));
CREATE TABLE IF NOT EXISTS crsql_token(
  origin INTEGER NOT NULL, version INTEGER NOT NULL, token INTEGER NOT NULL, PRIMARY KEY(origin, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_claim(
  origin INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL, token INTEGER NOT NULL,
  PRIMARY KEY(origin, lo)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_carried(
  origin INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY(origin, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_table(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL, active INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS crsql_column(
  table_id INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, is_key INTEGER NOT NULL, born INTEGER NOT NULL,
  died INTEGER, PRIMARY KEY(table_id, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_birth(
  table_id INTEGER NOT NULL, generation INTEGER NOT NULL, watermark BLOB NOT NULL, PRIMARY KEY(table_id, generation))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_alias(
  name TEXT NOT NULL, table_id INTEGER NOT NULL, column_id INTEGER NOT NULL, PRIMARY KEY(name, table_id, column_id))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_hidden(
  table_id INTEGER NOT NULL, key BLOB NOT NULL, column_id INTEGER NOT NULL, value,
  PRIMARY KEY(table_id, key, column_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crsql_aside(
  id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, reason TEXT NOT NULL, site_id BLOB NOT NULL, epoch INTEGER NOT NULL,
  version INTEGER NOT NULL, hash INTEGER NOT NULL UNIQUE, part BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS crsql_tracked_peers(
  site_id BLOB NOT NULL, version INTEGER NOT NULL, seq INTEGER DEFAULT 0, tag INTEGER NOT NULL, event INTEGER NOT NULL,
  PRIMARY KEY(site_id, tag, event));
