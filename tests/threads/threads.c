/* Many threads in one process that use the extension: threads <extension.so> <directory> <scenario> <seed> <steps>
**
** first   nobody has loaded it yet: threads open a connection each and load it, or register it as an automatic extension, at once
** shared  one connection in serialized mode, used by five threads at random, cursors and interrupts included
** apart   a connection in memory for each thread and no lock at all, so that nothing but the extension can put its accesses in an order
** own     threads that open, load, write, merge and close, on the same file, on different ones, in memory, with a shared cache
**
** It is run by threads.sh under a race detector, which finds the races; this program finds wrong answers (a result code that no
** such use can give, a message that speaks of a bug or of damage, a file that is not whole in the end) and exits with 1. */
#include <sqlite3.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__
/* rustc calls these, and the runtime of GCC 12 is too old to have them. It does have the functions that they stand for, with the same check. */
#define AS_BEFORE __attribute__((weak, no_sanitize("thread"), optimize("O2", "no-tree-loop-distribute-patterns")))
AS_BEFORE void *__tsan_memcpy(void *to, const void *from, size_t n) { return memcpy(to, from, n); }
AS_BEFORE void *__tsan_memmove(void *to, const void *from, size_t n) { return memmove(to, from, n); }
AS_BEFORE void *__tsan_memset(void *to, int byte, size_t n) { return memset(to, byte, n); }
#endif

enum { THREADS = 5, PARTS = 64, SLOTS = 6 };
static const char *so, *folder;
static uint64_t seed;
static int steps;
static atomic_int wrong, working, ran, refused, interrupted;
static pthread_barrier_t begin;

/* Changesets of another replica, its vector, and its cells as SQL: written before any thread begins. */
static struct { void *bytes; int len; } part[PARTS], vector;
static char *cell[4 * PARTS];
static int parts, cells;

typedef struct { uint64_t x; int n; } Random;
static uint64_t below(Random *r, uint64_t n) {
  r->x ^= r->x >> 12, r->x ^= r->x << 25, r->x ^= r->x >> 27;
  return (r->x * 0x2545f4914f6cdd1dULL >> 33) % n;
}
static Random new_random(uint64_t k) {
  Random r = {(seed * 1000 + k + 1) * 0x9e3779b97f4a7c15ULL | 1, (int)k};
  for (int i = 0; i < 8; i++) below(&r, 2);
  return r;
}

static void complain(const char *sql, int rc, const char *message) {
  atomic_store(&wrong, 1);
  fprintf(stderr, "WRONG: %.300s: %d %s\n", sql, rc, message ? message : "");
}
/* What no other thread can be the reason for. */
static int judge(const char *sql, int rc, const char *message) {
  switch (rc & 0xff) {
    case SQLITE_OK: case SQLITE_ROW: case SQLITE_DONE: atomic_fetch_add_explicit(&ran, 1, memory_order_relaxed); return rc;
    case SQLITE_INTERRUPT: atomic_store_explicit(&interrupted, 1, memory_order_relaxed); break;
    case SQLITE_BUSY: case SQLITE_LOCKED: case SQLITE_ABORT: case SQLITE_CONSTRAINT: case SQLITE_SCHEMA: break;
    case SQLITE_ERROR: if (message && (strstr(message, "a bug") || strstr(message, "damaged"))) complain(sql, rc, message); break;
    default: complain(sql, rc, message);
  }
  atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
  if (getenv("THREADS_SHOW")) fprintf(stderr, "-- %.160s: %d %s\n", sql, rc, message ? message : "");
  return rc;
}

/* In one call, so that the connection's mutex is held until the message is copied; or statement by statement and row by row. */
static int run(sqlite3 *db, const char *sql) {
  char *message = 0;
  int rc = judge(sql, sqlite3_exec(db, sql, 0, 0, &message), message);
  sqlite3_free(message);
  return rc;
}
static int in_steps(sqlite3 *db, const char *sql, const void *blob, int len) {
  sqlite3_stmt *s = 0;
  int rc = sqlite3_prepare_v2(db, sql, -1, &s, 0);
  if (rc || !s) return judge(sql, rc, 0);
  if (blob) sqlite3_bind_blob(s, 1, blob, len, SQLITE_STATIC);
  while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
    for (int i = 0; i < sqlite3_column_count(s); i++) {
      const unsigned char *bytes = sqlite3_column_blob(s, i);
      volatile unsigned sum = 0;
      for (int n = sqlite3_column_bytes(s, i); bytes && n-- > 0;) sum += bytes[n];
    }
  }
  judge(sql, rc, 0);
  sqlite3_finalize(s);
  return rc == SQLITE_DONE ? SQLITE_OK : rc;
}
static void must(sqlite3 *db, const char *sql) {
  int rc = run(db, sql);
  if (rc) complain(sql, rc, "it must not fail");
}

static sqlite3 *open_as(const char *name, int flags) {
  sqlite3 *db = 0;
  int rc = sqlite3_open_v2(name, &db, flags | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0);
  if (rc) complain(name, rc, sqlite3_errmsg(db));
  sqlite3_busy_timeout(db, 3000);
  return db;
}
static sqlite3 *with_extension(const char *name, int flags) {
  sqlite3 *db = open_as(name, flags);
  char *message = 0;
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int *)0);
  int rc = sqlite3_load_extension(db, so, "sqlite3_starling_init", &message);
  if (rc) complain("load_extension", rc, message);
  sqlite3_free(message);
  return db;
}
static const char *const SCHEMA[] = {
  "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a, b INTEGER)",
  "CREATE TABLE IF NOT EXISTS k(x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY(x, y)) WITHOUT ROWID",
  "CREATE TABLE IF NOT EXISTS n(id TEXT NOT NULL PRIMARY KEY, low INTEGER NOT NULL, high INTEGER, CHECK(low <= high))",
  "CREATE TABLE IF NOT EXISTS l(id INTEGER PRIMARY KEY, list, ord TEXT, title)",
  "CREATE TABLE IF NOT EXISTS p(id INTEGER PRIMARY KEY, v)",
  "SELECT crsql_as_crr('t'), crsql_as_crr('k', 'exact'), crsql_as_crr('n'), crsql_as_crr('l'), crsql_as_crr('p', 'portable')",
  "SELECT crsql_fract_as_ordered('l', 'ord', 'list')",
};
static int make_tables(sqlite3 *db) {
  int rc = run(db, "BEGIN IMMEDIATE");
  for (size_t i = 0; !rc && i < sizeof SCHEMA / sizeof *SCHEMA; i++) rc = run(db, SCHEMA[i]);
  if (rc || (rc = run(db, "COMMIT"))) run(db, "ROLLBACK");
  return rc;
}
static void close_it(sqlite3 *db) {
  int rc = sqlite3_close(db);
  if (rc) complain("close", rc, "something of the extension's is left open");
}

/* One statement or a few, of all that the interface has. */
static void something(sqlite3 *db, Random *r) {
  char sql[1600];
  int id = (int)below(r, 40), v = (int)below(r, 1000), few = (int)below(r, 8), me = r->n;
  const char *const cast[] = {"a", "b", "-1"}, *const names[] = {"t", "k", "n", "l", "p"};
#define SAY(...) sqlite3_snprintf(sizeof sql, sql, __VA_ARGS__)
  switch (below(r, 40)) {
    case 0: case 1: SAY("REPLACE INTO t(id, a, b) VALUES(%d, %d, 1), (%d, 'x', %d)", id, v, v, few); break;
    case 2: SAY("UPDATE t SET a = %d, b = coalesce(b, 0) + 1 WHERE id %% 8 = %d", v, few); break;
    case 3: SAY("DELETE FROM t WHERE id %% 8 = %d; UPDATE OR REPLACE t SET id = %d WHERE id = %d", few, v, id); break;
    case 4: SAY("WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i LIMIT 30) INSERT OR IGNORE INTO k SELECT n, zeroblob(%d) FROM i", few); break;
    case 5: SAY("DELETE FROM k WHERE x %% 7 = %d", few); break;
    case 6: SAY("INSERT OR IGNORE INTO n VALUES(uuid7(), %d, %d), ('%d', 1, 2); UPDATE n SET high = high + 1 WHERE id = '%d'", few, v, id, id); break;
    case 7: SAY("INSERT OR IGNORE INTO l VALUES(%d, %d, 1, 'x'); UPDATE l SET ord = -1 WHERE id = %d", id, few % 2, v % 40); break;
    case 8: SAY("INSERT OR IGNORE INTO l_fractindex(id, list, after_id) SELECT %d, list, id FROM l WHERE id >= %d LIMIT 1", v + 40, id); break;
    case 9: SAY("REPLACE INTO p VALUES(%d, %d); DELETE FROM p WHERE id = %d", id, v, few); break;
    case 10: SAY("SELECT * FROM crsql_changes WHERE db_version > %d", v / 10); break;
    case 11: SAY("SELECT c.*, u.cell FROM crsql_changes AS c, crsql_unpack_columns(c.pk) AS u WHERE [table] = '%s' AND site_id IS NOT crsql_site_id()", names[few % 5]); break;
    case 12: SAY("SELECT count(*), max(seq), max(commit_ms) FROM crsql_changes WHERE db_version BETWEEN %d AND %d AND cid = 'a'", few, v); break;
    case 13: SAY("INSERT INTO crsql_changes VALUES('t', crsql_pack_columns(%d), '%s', %d, %d, 1, x'0%d', %d, %d)", id, cast[few % 3], v, few + 1, few + 1, few % 3 + 1, few); break;
    case 14: SAY("INSERT INTO crsql_changes VALUES('%s', crsql_pack_columns('%d'), '%s', %d, %d, 1, x'0f', 1, 0)", few ? "n" : "none", id, few % 2 ? "low" : "high", few, few + 1); break;
    case 15: case 16: SAY("%s", cells ? cell[below(r, (uint64_t)cells)] : ";"); break;
    case 17: case 18:
      if (parts) { int i = (int)below(r, (uint64_t)parts); in_steps(db, "SELECT starling_merge(?1)", part[i].bytes, part[i].len); }
      return;
    case 19: in_steps(db, few ? "SELECT starling_check(?1), starling_forks(?1)" : "SELECT starling_claim(?1)", vector.bytes, vector.len); return;
    case 20: SAY("SELECT * FROM starling_changesets(%s, %d)", few % 2 ? "starling_vector()" : "NULL", v / 10); break;
    case 21: SAY("SELECT crsql_db_version(), crsql_next_db_version(), crsql_rows_impacted(), crsql_get_seq(), crsql_site_id(), crsql_internal_sync_bit()"); break;
    case 22: SAY("SELECT crsql_pack_columns(%d, 'x', 1.5, NULL), uuid7(), uuid7_blob(), crsql_fract_key_between('a0', 'a1'), starling_fract_nth_key('a0', 'a1', 1, 3)", v); break;
    case 23: SAY("SELECT starling_vector(), starling_answer_vector(), starling_version(), crsql_sha(), crsql_config_get('merge-equal-values')"); break;
    case 24: SAY("SAVEPOINT s%d; REPLACE INTO t(id, a, b) VALUES(%d, 's', 0)", me, v); break;
    case 25: SAY("ROLLBACK TO s%d; RELEASE s%d", me, me); break;
    case 26: SAY("RELEASE s%d", me); break;
    case 27: SAY("BEGIN IMMEDIATE; SELECT crsql_increment_and_get_seq(); UPDATE t SET b = b + 1 WHERE id < %d", id); break;
    case 28: SAY("COMMIT"); break;
    case 29: SAY(few < 2 ? "ROLLBACK" : "COMMIT"); break;
    case 30: SAY("SELECT starling_prune(%d), starling_mend(), starling_drain()", v); break;
    case 31: SAY("SELECT *, crsql_pending(), starling_aside() FROM crsql_pending"); break;
    case 32: SAY(few ? "SELECT starling_resume()" : "SELECT crsql_as_table('n')"); break;
    case 33: SAY("SELECT crsql_as_crr('n'), crsql_as_crr('t', '%s')", few % 2 ? "exact" : "native"); break;
    case 34: SAY(few < 3 ? "SELECT crsql_begin_alter('t')" : "SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN c%d DEFAULT %d; SELECT crsql_commit_alter('t')", few, v); break;
    case 35: SAY(few < 5 ? "SELECT crsql_commit_alter('t')" : "SELECT crsql_begin_alter('t'); ALTER TABLE t DROP COLUMN c%d; SELECT crsql_commit_alter('t')", few); break;
    case 36: SAY(few == 0 ? "SELECT starling_new_epoch()" : few == 1 ? "SELECT starling_new_site()" : "SELECT crsql_config_set('merge-equal-values', %d)", few % 2); break;
    case 37: SAY(few < 4 ? "ATTACH ':memory:' AS o%d; CREATE TABLE o%d.w AS SELECT * FROM crsql_changes LIMIT 9" : "DETACH o%d", few % 4, few % 4); break;
    case 38: SAY(few ? "INSERT INTO t(id, a, b) VALUES(%d, 'r', 1), (%d, 'r', 2) RETURNING id, crsql_db_version()" : "PRAGMA wal_checkpoint", v, v + 1); break;
    default:
      if (few > 1) return;
      SAY("SELECT crsql_automigrate('%s; %s; %s; %s; %s; SELECT crsql_as_crr(''t''), crsql_as_crr(''n''), crsql_as_crr(''k'')')", SCHEMA[0], SCHEMA[1], SCHEMA[2], SCHEMA[3], SCHEMA[4]);
  }
#undef SAY
  if (below(r, 2)) run(db, sql);
  else in_steps(db, sql, 0, 0);
}

/* What must hold of a file when all is over. */
static int whole(void *file, int n, char **values, char **names) {
  (void)names;
  if (n != 1 || strcmp(values[0], "ok")) complain(file, 0, values[0]);
  return 0;
}
static void examine(char *file) {
  sqlite3 *db = with_extension(file, SQLITE_OPEN_FULLMUTEX);
  sqlite3_exec(db, "PRAGMA integrity_check", whole, file, 0);
  must(db, "SELECT * FROM crsql_changes; SELECT * FROM starling_changesets; SELECT starling_resume(), crsql_pending()");
  close_it(db);
}

static void prepare_peer(void) {
  Random r = new_random(999);
  sqlite3 *db = with_extension(":memory:", SQLITE_OPEN_FULLMUTEX);
  make_tables(db);
  for (int i = 0; i < 60; i++) something(db, &r);
  run(db, "COMMIT");
  sqlite3_stmt *s = 0;
  sqlite3_prepare_v2(db, "SELECT changeset FROM starling_changesets", -1, &s, 0);
  for (; parts < PARTS && sqlite3_step(s) == SQLITE_ROW; parts++) {
    part[parts].len = sqlite3_column_bytes(s, 0);
    part[parts].bytes = memcpy(malloc((size_t)part[parts].len + 1), sqlite3_column_blob(s, 0), (size_t)part[parts].len);
  }
  sqlite3_finalize(s);
  sqlite3_prepare_v2(db, "SELECT printf('INSERT INTO crsql_changes VALUES(%Q, %s, %Q, %s, %d, %d, %s, %d, %d)', [table], quote(pk), cid,"
    " quote(val), col_version, db_version, quote(site_id), cl, seq), starling_vector() FROM crsql_changes", -1, &s, 0);
  for (; cells < 4 * PARTS && sqlite3_step(s) == SQLITE_ROW; cells++) {
    cell[cells] = strdup((const char *)sqlite3_column_text(s, 0));
    if (cells) continue;
    vector.len = sqlite3_column_bytes(s, 1);
    vector.bytes = memcpy(malloc((size_t)vector.len + 1), sqlite3_column_blob(s, 1), (size_t)vector.len);
  }
  sqlite3_finalize(s);
  close_it(db);
  if (!parts || !cells) complain("the other replica", 0, "it has nothing to say");
}

/* ---- first */

static void *load_first(void *arg) {
  Random r = new_random((uint64_t)(intptr_t)arg);
  char name[600];
  int automatic = (int)(seed % 3);
  snprintf(name, sizeof name, r.n % 2 ? "%s/first.db" : ":memory:", folder);
  pthread_barrier_wait(&begin);
  if (automatic) {
    void (*init)(void) = 0;
    void *library = dlopen(so, RTLD_NOW | RTLD_LOCAL);
    if (library) *(void **)&init = dlsym(library, "sqlite3_starling_init");
    if (!init || sqlite3_auto_extension(init)) complain(so, 0, dlerror());
  }
  for (int i = 0; i < 3; i++) {
    sqlite3 *db = automatic == 1 ? open_as(name, SQLITE_OPEN_FULLMUTEX) : with_extension(name, r.n % 3 ? SQLITE_OPEN_FULLMUTEX : SQLITE_OPEN_NOMUTEX);
    must(db, "SELECT uuid7(), starling_version(), crsql_pack_columns(1, 'x')");
    make_tables(db);
    for (int k = 0; k < 2; k++) something(db, &r);
    close_it(db);
  }
  return 0;
}

/* ---- shared */

static sqlite3 *one;
static _Atomic(sqlite3_stmt *) slot[SLOTS];

/* Cursors that one thread opens, another steps on, and a third finalizes. */
static void cursor(Random *r) {
  static const char *const queries[] = {
    "SELECT * FROM crsql_changes", "SELECT * FROM crsql_changes WHERE db_version > 5 AND [table] = 't'", "SELECT * FROM crsql_pending",
    "SELECT changeset FROM starling_changesets(NULL, NULL)", "SELECT t.id, cell FROM t, crsql_unpack_columns(crsql_pack_columns(t.id, t.a))",
  };
  sqlite3_stmt *s = atomic_exchange(&slot[below(r, SLOTS)], 0);
  if (!s && judge("a cursor", sqlite3_prepare_v2(one, queries[below(r, 5)], -1, &s, 0), 0)) return;
  for (int n = (int)below(r, 12); n-- > 0;) {
    if (judge("a cursor", sqlite3_step(s), 0) != SQLITE_ROW) break;
    sqlite3_column_int64(s, (int)below(r, (uint64_t)sqlite3_column_count(s)));
  }
  if (below(r, 5)) s = atomic_exchange(&slot[below(r, SLOTS)], s);
  sqlite3_finalize(s);
}
static void *finalize_all(void *arg) {
  for (int i = 0; i < SLOTS; i++) sqlite3_finalize(atomic_exchange(&slot[i], 0));
  return arg;
}
static void *share(void *arg) {
  Random r = new_random((uint64_t)(intptr_t)arg);
  pthread_barrier_wait(&begin);
  for (int i = 0; i < steps; i++) {
    /* An interrupt lasts as long as any statement is half run. */
    if (atomic_exchange_explicit(&interrupted, 0, memory_order_relaxed)) finalize_all(0), usleep(500);
    switch (below(&r, 16)) {
      case 0: case 1: case 2: cursor(&r); break;
      /* sqlite3_changes() and the like are left out: SQLite reads them without a lock, and says that they are unpredictable here. */
      case 3: sqlite3_db_release_memory(one), sqlite3_db_cacheflush(one); break;
      case 4: if (!sqlite3_get_autocommit(one)) run(one, "COMMIT"); break;
      default: something(one, &r);
    }
  }
  atomic_fetch_sub(&working, 1);
  return 0;
}
static void *interrupt(void *arg) {
  Random r = new_random((uint64_t)(intptr_t)arg);
  pthread_barrier_wait(&begin);
  while (atomic_load(&working) > 0) {
    int next = atomic_load_explicit(&ran, memory_order_relaxed) + (int)below(&r, 120) + 5;
    while (atomic_load(&working) > 0 && atomic_load_explicit(&ran, memory_order_relaxed) < next) usleep(300);
    sqlite3_interrupt(one);
  }
  return 0;
}

/* ---- apart */

static void *apart(void *arg) {
  Random r = new_random((uint64_t)(intptr_t)arg);
  sqlite3 *db = with_extension(":memory:", SQLITE_OPEN_NOMUTEX);
  make_tables(db);
  pthread_barrier_wait(&begin);
  for (int i = 0; i < steps; i++) something(db, &r);
  pthread_barrier_wait(&begin);
  close_it(db);
  return 0;
}

/* ---- own */

static void *own(void *arg) {
  Random r = new_random((uint64_t)(intptr_t)arg);
  char name[600];
  pthread_barrier_wait(&begin);
  for (int i = 0; i < steps; i++) {
    int flags = below(&r, 2) ? SQLITE_OPEN_FULLMUTEX : SQLITE_OPEN_NOMUTEX, kind = (int)below(&r, 6);
    if (kind == 5) flags |= SQLITE_OPEN_SHAREDCACHE;
    switch (kind) {
      case 0: case 1: snprintf(name, sizeof name, "%s/same%d.db", folder, kind); break;
      case 2: snprintf(name, sizeof name, "%s/thread%d.db", folder, r.n); break;
      case 3: snprintf(name, sizeof name, ":memory:"); break;
      case 4: snprintf(name, sizeof name, "file:memory?mode=memory&cache=shared"); break;
      default: snprintf(name, sizeof name, "%s/cached.db", folder);
    }
    sqlite3 *db = with_extension(name, flags);
    run(db, kind % 2 ? "PRAGMA synchronous = off; PRAGMA journal_mode = wal" : "PRAGMA synchronous = off");
    make_tables(db);
    for (int k = (int)below(&r, 8); k-- > 0;) something(db, &r);
    close_it(db);
  }
  return 0;
}

static void all_at_once(void *(*body)(void *), void *(*nuisance)(void *)) {
  pthread_t thread[THREADS + 1];
  int n = THREADS + (nuisance != 0);
  pthread_barrier_init(&begin, 0, (unsigned)n);
  atomic_store(&working, THREADS);
  for (int i = 0; i < n; i++) pthread_create(&thread[i], 0, i < THREADS ? body : nuisance, (void *)(intptr_t)(i + 1));
  for (int i = 0; i < n; i++) pthread_join(thread[i], 0);
}

int main(int argc, char **argv) {
  if (argc != 6) return fprintf(stderr, "usage: threads <extension.so> <directory> first|shared|apart|own <seed> <steps>\n"), 2;
  so = argv[1], folder = argv[2], seed = strtoull(argv[4], 0, 10), steps = atoi(argv[5]);
  char file[600];
  /* The statistics of memory have a mutex that each allocation takes: to the detector it would put nearly everything in an order. */
  sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  sqlite3_initialize(); /* which SQLite does without a lock where it has been done: no race that matters, but one */
  if (!strcmp(argv[3], "first")) {
    all_at_once(load_first, 0);
    snprintf(file, sizeof file, "%s/first.db", folder);
    examine(file);
  } else if (!strcmp(argv[3], "shared")) {
    prepare_peer();
    snprintf(file, sizeof file, "%s/shared.db", folder);
    one = with_extension(file, SQLITE_OPEN_FULLMUTEX);
    must(one, seed % 2 ? "PRAGMA journal_mode = wal; PRAGMA synchronous = off" : "PRAGMA synchronous = off");
    make_tables(one);
    all_at_once(share, interrupt);
    /* The last statement closes it, from another thread. */
    run(one, "ROLLBACK");
    sqlite3_close_v2(one);
    pthread_t last;
    pthread_create(&last, 0, finalize_all, 0);
    pthread_join(last, 0);
    examine(file);
  } else if (!strcmp(argv[3], "apart")) {
    prepare_peer();
    all_at_once(apart, 0);
  } else {
    prepare_peer();
    sqlite3 *anchor = open_as("file:memory?mode=memory&cache=shared", SQLITE_OPEN_FULLMUTEX);
    all_at_once(own, 0);
    close_it(anchor);
    for (int i = 0; i < 3; i++) {
      snprintf(file, sizeof file, i < 2 ? "%s/same%d.db" : "%s/cached.db", folder, i);
      examine(file);
    }
  }
  printf("threads: %s, seed %llu: %d statements, %d refused%s\n", argv[3], (unsigned long long)seed, atomic_load(&ran), atomic_load(&refused),
         atomic_load(&wrong) ? ": WRONG" : "");
  return atomic_load(&wrong);
}
