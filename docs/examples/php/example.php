<?php
// Two SQLite files that take each other's changes, with PHP's SQLite3 class. It loads extensions out of one directory
// only, which php.ini or -d names:
//
//     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so php -d sqlite3.extension_dir=/path/to /path/to/example.php
declare(strict_types=1);

const TABLE = 'CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)';

// What two replicas must agree on: the rows, and every cell's clock.
const CONTENT = "
    SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
    UNION ALL
    SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
    ORDER BY 1";

function connect(string $path): SQLite3
{
    $db = new SQLite3($path);
    $db->enableExceptions(true);
    $db->busyTimeout(5000);
    $db->loadExtension(basename(getenv('STARLING_SO')));
    $db->exec('PRAGMA journal_mode = WAL');
    return $db;
}

// All rows. A string may be text or a blob, and PHP cannot tell: say SQLITE3_BLOB where a blob is meant.
function rows(SQLite3 $db, string $sql, mixed $parameter = null, int $type = SQLITE3_BLOB): array
{
    $statement = $db->prepare($sql);
    if ($parameter !== null) {
        $statement->bindValue(1, $parameter, $type);
    }
    $result = $statement->execute();
    $rows = [];
    while ($row = $result->fetchArray(SQLITE3_NUM)) {
        $rows[] = $row;
    }
    $statement->close();
    return $rows;
}

function value(SQLite3 $db, string $sql, ?string $blob = null): mixed
{
    return rows($db, $sql, $blob)[0][0];
}

function version(SQLite3 $db): int
{
    return value($db, 'SELECT crsql_db_version()');
}

function content(SQLite3 $db): array
{
    return rows($db, CONTENT);
}

// The portable way: nine columns out of one file, nine values into the other. Returns how many. The value's type is asked
// for and goes along, because a PHP string does not keep it.
function copy_changes(SQLite3 $source, SQLite3 $target, int $since): int
{
    $types = ['integer' => SQLITE3_INTEGER, 'real' => SQLITE3_FLOAT, 'text' => SQLITE3_TEXT, 'blob' => SQLITE3_BLOB, 'null' => SQLITE3_NULL];
    $changes = rows($source, 'SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq, typeof(val)
                              FROM crsql_changes WHERE db_version > ?', $since, SQLITE3_INTEGER);
    $target->exec('BEGIN IMMEDIATE');
    $insert = $target->prepare('INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)');
    foreach ($changes as $change) {
        $kinds = [SQLITE3_TEXT, SQLITE3_BLOB, SQLITE3_TEXT, $types[$change[9]], SQLITE3_INTEGER, SQLITE3_INTEGER, SQLITE3_BLOB, SQLITE3_INTEGER, SQLITE3_INTEGER];
        foreach ($kinds as $i => $kind) {
            $insert->bindValue($i + 1, $change[$i], $kind);
        }
        $insert->execute()->finalize();
    }
    $insert->close();
    $target->exec('COMMIT');
    return count($changes);
}

// The fast way: whole transactions as blobs, and only those that the target does not have.
function pull(SQLite3 $target, SQLite3 $source): void
{
    $have = value($target, 'SELECT starling_vector()');
    $source->exec('BEGIN'); // one snapshot for the changesets and for the vector that they lead to
    $changesets = rows($source, 'SELECT changeset FROM starling_changesets(?, 0)', $have);
    $leadsTo = value($source, 'SELECT starling_answer_vector()');
    $source->exec('COMMIT');
    $target->exec('BEGIN IMMEDIATE');
    foreach ($changesets as [$changeset]) {
        value($target, 'SELECT starling_merge(?)', $changeset);
    }
    value($target, 'SELECT starling_claim(?)', $leadsTo);
    $target->exec('COMMIT');
}

function check(string $what, bool $condition): void
{
    if (!$condition) {
        fwrite(STDERR, "php: $what\n");
        exit(1);
    }
}

function insert(SQLite3 $db, string $id, ?string $status, int $serial, float $load, string $photo): void
{
    $statement = $db->prepare('INSERT INTO machines VALUES(?, ?, ?, ?, ?)');
    $statement->bindValue(1, $id);
    $statement->bindValue(2, $status);
    $statement->bindValue(3, $serial);
    $statement->bindValue(4, $load);
    $statement->bindValue(5, $photo, SQLITE3_BLOB);
    $statement->execute();
    $statement->close();
}

[$one, $two] = [connect('one.db'), connect('two.db')];
foreach ([$one, $two] as $db) {
    $db->exec(TABLE);
    value($db, "SELECT crsql_as_crr('machines')");
}

// Both are written to; then each takes what the other has.
insert($one, 'm-1', null, 9007199254740993, 2.0, "\x00\xff");
insert($one, 'm-2', 'läuft', -1, 0.1, '');
$two->exec("INSERT INTO machines VALUES('m-3', 'new', 3, NULL, NULL)");
copy_changes($one, $two, 0);
copy_changes($two, $one, 0);
check('the files differ', content($one) === content($two));

// From then on only what is newer than the version seen last.
$seen = version($one);
$one->exec("UPDATE machines SET load = 3.0 WHERE id = 'm-1'");
check('one changed cell is one change', copy_changes($one, $two, $seen) === 1);
check('the files differ', content($one) === content($two));

// What is rolled back was never there.
$before = [version($one), content($one)];
$one->exec('BEGIN IMMEDIATE');
$error = '';
try {
    $one->exec("UPDATE machines SET status = 'lost'");
    $one->exec("INSERT INTO machines(id) VALUES('m-1')");
} catch (Exception $e) {
    $error = $e->getMessage();
}
$one->exec('ROLLBACK');
check('a key was inserted twice', $error === 'UNIQUE constraint failed: machines.id');
check('a rollback left something', $before === [version($one), content($one)]);

// Another connection sees what is committed, at once.
$other = connect('one.db');
$last = version($other);
$one->exec("UPDATE machines SET serial = 2 WHERE id = 'm-2'");
check('the commit is not seen', version($one) === $last + 1 && version($other) === $last + 1);
check('it does not close', $other->close());

// A conflict: both write one cell. Both files end with the same value, whoever merges first.
$one->exec("UPDATE machines SET status = 'sick' WHERE id = 'm-1'");
$two->exec("UPDATE machines SET status = 'healthy' WHERE id = 'm-1'");
$two->exec("DELETE FROM machines WHERE id = 'm-3'");
pull($one, $two);
pull($two, $one);
check('the files differ', content($one) === content($two));

// Closing needs no call before it.
$sqlite = SQLite3::version()['versionString'];
check('it does not close', $one->close() && $two->close());
printf("ok php %s sqlite %s\n", PHP_VERSION, $sqlite);
