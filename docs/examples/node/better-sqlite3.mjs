// Two SQLite files that take each other's changes, with better-sqlite3 (npm install better-sqlite3), which brings its own
// SQLite.
//
//     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so node /path/to/better-sqlite3.mjs
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

// From the working directory, or from wherever NODE_PATH says.
const require = createRequire(import.meta.url);
const Database = require('better-sqlite3');

const TABLE = 'CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)';

// What two replicas must agree on: the rows, and every cell's clock.
const CONTENT = `
  SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
  UNION ALL
  SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
  ORDER BY 1`;

function connect(path) {
  const db = new Database(path, { timeout: 5000 });
  db.loadExtension(resolve(process.env.STARLING_SO));
  db.pragma('journal_mode = WAL');
  return db;
}

const value = (db, sql, ...parameters) => db.prepare(sql).pluck().get(...parameters);
const version = (db) => value(db, 'SELECT crsql_db_version()');
const content = (db) => db.prepare(CONTENT).pluck().all().join('\n');

// The portable way: nine columns out of one file, nine values into the other. Returns how many. safeIntegers() matters:
// it reads INTEGERs as BigInt, so that those above 2^53 arrive whole, and that 1 and 1.0 stay two different values.
function copyChanges(source, target, since) {
  const changes = source
    .prepare('SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > ?')
    .safeIntegers()
    .raw()
    .all(since);
  const insert = target.prepare('INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)');
  target.transaction(() => changes.forEach((change) => insert.run(change))).immediate();
  return changes.length;
}

// The fast way: whole transactions as blobs, and only those that the target does not have.
function pull(target, source) {
  const have = value(target, 'SELECT starling_vector()');
  // One snapshot for the changesets and for the vector that they lead to.
  const [changesets, leadsTo] = source.transaction(() => [
    source.prepare('SELECT changeset FROM starling_changesets(?, 0)').pluck().all(have),
    value(source, 'SELECT starling_answer_vector()'),
  ])();
  target
    .transaction(() => {
      changesets.forEach((changeset) => value(target, 'SELECT starling_merge(?)', changeset));
      value(target, 'SELECT starling_claim(?)', leadsTo);
    })
    .immediate();
}

function check(what, condition) {
  if (!condition) throw new Error(`better-sqlite3: ${what}`);
}

const one = connect('one.db');
const two = connect('two.db');
for (const db of [one, two]) {
  db.exec(TABLE);
  value(db, "SELECT crsql_as_crr('machines')");
}

// Both are written to; then each takes what the other has.
const insert = 'INSERT INTO machines VALUES(?, ?, ?, ?, ?)';
one.prepare(insert).run('m-1', null, 9007199254740993n, 2.0, Buffer.from([0x00, 0xff]));
one.prepare(insert).run('m-2', 'läuft', -1, 0.1, Buffer.alloc(0));
two.prepare(insert).run('m-3', 'new', 3, null, null);
copyChanges(one, two, 0);
copyChanges(two, one, 0);
check('the files differ', content(one) === content(two));

// From then on only what is newer than the version seen last.
const seen = version(one);
one.exec("UPDATE machines SET load = 3.0 WHERE id = 'm-1'");
check('one changed cell is one change', copyChanges(one, two, seen) === 1);
check('the files differ', content(one) === content(two));

// What is rolled back was never there: transaction() rolls back when its function throws.
const before = version(one) + content(one);
let error;
try {
  one
    .transaction(() => {
      one.exec("UPDATE machines SET status = 'lost'");
      one.exec("INSERT INTO machines(id) VALUES('m-1')");
    })
    .immediate();
} catch (e) {
  error = e;
}
check('a key was inserted twice', error?.code === 'SQLITE_CONSTRAINT_PRIMARYKEY');
check('a rollback left something', before === version(one) + content(one));

// Another connection sees what is committed, at once.
const other = connect('one.db');
const last = version(other);
one.exec("UPDATE machines SET serial = 2 WHERE id = 'm-2'");
check('the commit is not seen', version(one) === last + 1 && version(other) === last + 1);
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
console.log(`ok node-better-sqlite3 ${require('better-sqlite3/package.json').version} sqlite ${sqlite}`);
