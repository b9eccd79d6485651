// Two SQLite files that take each other's changes, with node:sqlite, which is part of Node since 22.5.
//
//     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so node /path/to/node-sqlite.mjs
import { resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

const TABLE = 'CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)';

// What two replicas must agree on: the rows, and every cell's clock.
const CONTENT = `
  SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) AS line FROM machines
  UNION ALL
  SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
  ORDER BY 1`;

function connect(path) {
  // Without allowExtension no extension can be loaded, and it cannot be allowed later.
  const db = new DatabaseSync(path, { allowExtension: true });
  db.exec('PRAGMA busy_timeout = 5000');
  db.loadExtension(resolve(process.env.STARLING_SO));
  db.enableLoadExtension(false);
  db.exec('PRAGMA journal_mode = WAL');
  return db;
}

// Rows as arrays. setReadBigInts(true) matters where values travel: it reads INTEGERs as BigInt, so that those above 2^53
// arrive whole (they are an error otherwise), and that 1 and 1.0 stay two different values.
function rows(db, sql, ...parameters) {
  const statement = db.prepare(sql);
  statement.setReadBigInts(true);
  return statement.all(...parameters).map(Object.values);
}

const value = (db, sql, ...parameters) => rows(db, sql, ...parameters)[0][0];
const version = (db) => value(db, 'SELECT crsql_db_version()');
const content = (db) => rows(db, CONTENT).join('\n');

function transaction(db, begin, work) {
  db.exec(begin);
  try {
    const result = work();
    db.exec('COMMIT');
    return result;
  } catch (e) {
    db.exec('ROLLBACK');
    throw e;
  }
}

// An empty blob that was read is bound as NULL by Node 22; a fresh empty array is not.
const bindable = (v) => (v?.byteLength === 0 ? new Uint8Array() : v);

// The portable way: nine columns out of one file, nine values into the other. Returns how many.
function copyChanges(source, target, since) {
  const changes = rows(
    source,
    'SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > ?',
    since,
  );
  const insert = target.prepare('INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)');
  transaction(target, 'BEGIN IMMEDIATE', () => changes.forEach((change) => insert.run(...change.map(bindable))));
  return changes.length;
}

// The fast way: whole transactions as blobs, and only those that the target does not have.
function pull(target, source) {
  const have = value(target, 'SELECT starling_vector()');
  // One snapshot for the changesets and for the vector that they lead to.
  const [changesets, leadsTo] = transaction(source, 'BEGIN', () => [
    rows(source, 'SELECT changeset FROM starling_changesets(?, 0)', have),
    value(source, 'SELECT starling_answer_vector()'),
  ]);
  transaction(target, 'BEGIN IMMEDIATE', () => {
    changesets.forEach(([changeset]) => value(target, 'SELECT starling_merge(?)', changeset));
    value(target, 'SELECT starling_claim(?)', leadsTo);
  });
}

function check(what, condition) {
  if (!condition) throw new Error(`node:sqlite: ${what}`);
}

const one = connect('one.db');
const two = connect('two.db');
for (const db of [one, two]) {
  db.exec(TABLE);
  value(db, "SELECT crsql_as_crr('machines')");
}

// Both are written to; then each takes what the other has.
const insert = 'INSERT INTO machines VALUES(?, ?, ?, ?, ?)';
one.prepare(insert).run('m-1', null, 9007199254740993n, 2.0, Uint8Array.of(0x00, 0xff));
one.prepare(insert).run('m-2', 'läuft', -1, 0.1, new Uint8Array());
two.prepare(insert).run('m-3', 'new', 3, null, null);
copyChanges(one, two, 0);
copyChanges(two, one, 0);
check('the files differ', content(one) === content(two));

// From then on only what is newer than the version seen last.
const seen = version(one);
one.exec("UPDATE machines SET load = 3.0 WHERE id = 'm-1'");
check('one changed cell is one change', copyChanges(one, two, seen) === 1);
check('the files differ', content(one) === content(two));

// What is rolled back was never there.
const before = version(one) + content(one);
let error;
try {
  transaction(one, 'BEGIN IMMEDIATE', () => {
    one.exec("UPDATE machines SET status = 'lost'");
    one.exec("INSERT INTO machines(id) VALUES('m-1')");
  });
} catch (e) {
  error = e;
}
check('a key was inserted twice', error?.message === 'UNIQUE constraint failed: machines.id');
check('a rollback left something', before === version(one) + content(one));

// Another connection sees what is committed, at once.
const other = connect('one.db');
const last = version(other);
one.exec("UPDATE machines SET serial = 2 WHERE id = 'm-2'");
check('the commit is not seen', version(one) === last + 1n && version(other) === last + 1n);
other.close();

// A conflict: both write one cell. Both files end with the same value, whoever merges first.
one.exec("UPDATE machines SET status = 'sick' WHERE id = 'm-1'");
two.exec("UPDATE machines SET status = 'healthy' WHERE id = 'm-1'");
two.exec("DELETE FROM machines WHERE id = 'm-3'");
pull(one, two);
pull(two, one);
check('the files differ', content(one) === content(two));

// Closing needs no call before it.
const sqlite = value(one, 'SELECT sqlite_version()');
one.close();
two.close();
console.log(`ok node-sqlite ${process.versions.node} sqlite ${sqlite}`);
