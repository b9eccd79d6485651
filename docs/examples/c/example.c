/* Two SQLite files that take each other's changes, with SQLite's C interface.
 *
 *     cc -o example example.c -lsqlite3
 *     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so /path/to/example
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *TABLE =
    "CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)";

/* What two replicas must agree on, as one text: the rows, and every cell's clock. */
static const char *CONTENT =
    "SELECT group_concat(line, char(10)) FROM ("
    "  SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) AS line FROM machines"
    "  UNION ALL"
    "  SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes"
    "  ORDER BY 1)";

static void check(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "c: %s\n", what);
        exit(1);
    }
}

/* Ends the program with SQLite's own words unless the result is the one that was expected. */
static void expect(sqlite3 *db, int got, int expected, const char *what) {
    if (got != expected) {
        fprintf(stderr, "c: %s: %s\n", what, sqlite3_errmsg(db));
        exit(1);
    }
}

static void run(sqlite3 *db, const char *sql) {
    expect(db, sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, sql);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql) {
    sqlite3_stmt *statement;
    expect(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK, sql);
    return statement;
}

static sqlite3 *connect(const char *path) {
    const char *extension = getenv("STARLING_SO");
    sqlite3 *db;
    char *error = NULL;
    check(extension != NULL, "STARLING_SO must name starling.so");
    check(sqlite3_open(path, &db) == SQLITE_OK, "the file does not open");
    sqlite3_busy_timeout(db, 5000);
    /* Allows sqlite3_load_extension, but not the SQL function load_extension(). */
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (sqlite3_load_extension(db, extension, NULL, &error) != SQLITE_OK) {
        fprintf(stderr, "c: %s\n", error);
        exit(1);
    }
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    run(db, "PRAGMA journal_mode = WAL");
    return db;
}

/* sqlite3_close, unlike sqlite3_close_v2, is refused while a statement is open: none is, not in the extension either. */
static void disconnect(sqlite3 *db) {
    expect(db, sqlite3_close(db), SQLITE_OK, "sqlite3_close");
}

static sqlite3_int64 version(sqlite3 *db) {
    sqlite3_stmt *statement = prepare(db, "SELECT crsql_db_version()");
    sqlite3_int64 version;
    expect(db, sqlite3_step(statement), SQLITE_ROW, "crsql_db_version");
    version = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

static char *content(sqlite3 *db) {
    sqlite3_stmt *statement = prepare(db, CONTENT);
    char *text;
    expect(db, sqlite3_step(statement), SQLITE_ROW, "the content");
    text = strdup((const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    return text;
}

static void same(sqlite3 *one, sqlite3 *two) {
    char *a = content(one), *b = content(two);
    check(strcmp(a, b) == 0, "the files differ");
    free(a);
    free(b);
}

/* The portable way: nine columns out of one file, nine values into the other. Returns how many. */
static int copy_changes(sqlite3 *source, sqlite3 *target, sqlite3_int64 since) {
    sqlite3_stmt *select = prepare(source, "SELECT \"table\", pk, cid, val, col_version, db_version, site_id, cl, seq"
                                           " FROM crsql_changes WHERE db_version > ?");
    sqlite3_stmt *insert = prepare(target, "INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)");
    int count = 0, step, i;
    sqlite3_bind_int64(select, 1, since);
    run(target, "BEGIN IMMEDIATE");
    while ((step = sqlite3_step(select)) == SQLITE_ROW) {
        for (i = 0; i < 9; i++) sqlite3_bind_value(insert, i + 1, sqlite3_column_value(select, i));
        expect(target, sqlite3_step(insert), SQLITE_DONE, "INSERT INTO crsql_changes");
        sqlite3_reset(insert);
        count++;
    }
    expect(source, step, SQLITE_DONE, "crsql_changes");
    sqlite3_finalize(select);
    sqlite3_finalize(insert);
    run(target, "COMMIT");
    return count;
}

/* Calls a function of the extension with the blob that stands in a column. */
static void call(sqlite3 *db, const char *sql, sqlite3_stmt *row, int column) {
    sqlite3_stmt *statement = prepare(db, sql);
    sqlite3_bind_value(statement, 1, sqlite3_column_value(row, column));
    expect(db, sqlite3_step(statement), SQLITE_ROW, sql);
    sqlite3_finalize(statement);
}

/* The fast way: whole transactions as blobs, and only those that the target does not have. */
static void pull(sqlite3 *target, sqlite3 *source) {
    sqlite3_stmt *have = prepare(target, "SELECT starling_vector()");
    sqlite3_stmt *changesets = prepare(source, "SELECT changeset FROM starling_changesets(?, 0)");
    sqlite3_stmt *leads_to = prepare(source, "SELECT starling_answer_vector()");
    int step;
    expect(target, sqlite3_step(have), SQLITE_ROW, "starling_vector");
    sqlite3_bind_value(changesets, 1, sqlite3_column_value(have, 0));
    sqlite3_finalize(have);
    run(source, "BEGIN"); /* one snapshot for the changesets and for the vector that they lead to */
    run(target, "BEGIN IMMEDIATE");
    while ((step = sqlite3_step(changesets)) == SQLITE_ROW) call(target, "SELECT starling_merge(?)", changesets, 0);
    expect(source, step, SQLITE_DONE, "starling_changesets");
    expect(source, sqlite3_step(leads_to), SQLITE_ROW, "starling_answer_vector");
    call(target, "SELECT starling_claim(?)", leads_to, 0);
    sqlite3_finalize(changesets);
    sqlite3_finalize(leads_to);
    run(source, "COMMIT");
    run(target, "COMMIT");
}

static void insert(sqlite3 *db, const char *id, const char *status, sqlite3_int64 serial, double load, const void *photo, int size) {
    sqlite3_stmt *statement = prepare(db, "INSERT INTO machines VALUES(?, ?, ?, ?, ?)");
    sqlite3_bind_text(statement, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, status, -1, SQLITE_STATIC); /* a null pointer is NULL */
    sqlite3_bind_int64(statement, 3, serial);
    sqlite3_bind_double(statement, 4, load);
    sqlite3_bind_blob(statement, 5, photo, size, SQLITE_STATIC);
    expect(db, sqlite3_step(statement), SQLITE_DONE, "INSERT");
    sqlite3_finalize(statement);
}

/* What is rolled back was never there. */
static void fail_and_roll_back(sqlite3 *db) {
    sqlite3_int64 version_before = version(db);
    char *before = content(db), *after;
    run(db, "BEGIN IMMEDIATE");
    run(db, "UPDATE machines SET status = 'lost'");
    expect(db, sqlite3_exec(db, "INSERT INTO machines(id) VALUES('m-1')", NULL, NULL, NULL), SQLITE_CONSTRAINT, "a second m-1");
    run(db, "ROLLBACK");
    after = content(db);
    check(version(db) == version_before && strcmp(before, after) == 0, "a rollback left something");
    free(before);
    free(after);
}

int main(void) {
    sqlite3 *one = connect("one.db"), *two = connect("two.db"), *other;
    sqlite3_int64 seen;
    run(one, TABLE);
    run(two, TABLE);
    run(one, "SELECT crsql_as_crr('machines')");
    run(two, "SELECT crsql_as_crr('machines')");

    /* Both are written to; then each takes what the other has. */
    insert(one, "m-1", NULL, 9007199254740993, 2.0, "\x00\xff", 2);
    insert(one, "m-2", "l\xc3\xa4uft", -1, 0.1, "", 0);
    run(two, "INSERT INTO machines VALUES('m-3', 'new', 3, NULL, NULL)");
    copy_changes(one, two, 0);
    copy_changes(two, one, 0);
    same(one, two);

    /* From then on only what is newer than the version seen last. */
    seen = version(one);
    run(one, "UPDATE machines SET load = 3.0 WHERE id = 'm-1'");
    check(copy_changes(one, two, seen) == 1, "one changed cell is one change");
    same(one, two);

    fail_and_roll_back(one);

    /* Another connection sees what is committed, at once. */
    other = connect("one.db");
    seen = version(other);
    run(one, "UPDATE machines SET serial = 2 WHERE id = 'm-2'");
    check(version(one) == seen + 1 && version(other) == seen + 1, "the commit is not seen");
    disconnect(other);

    /* A conflict: both write one cell. Both files end with the same value, whoever merges first. */
    run(one, "UPDATE machines SET status = 'sick' WHERE id = 'm-1'");
    run(two, "UPDATE machines SET status = 'healthy' WHERE id = 'm-1'");
    run(two, "DELETE FROM machines WHERE id = 'm-3'");
    pull(one, two);
    pull(two, one);
    same(one, two);

    disconnect(one);
    disconnect(two);
    printf("ok c %s sqlite %s\n", SQLITE_VERSION, sqlite3_libversion());
    return 0;
}
