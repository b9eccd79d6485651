// Two SQLite files that take each other's changes, with database/sql and github.com/mattn/go-sqlite3.
//
//	go build -o example example.go
//	cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so /path/to/example
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/mattn/go-sqlite3"
)

const table = `CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)`

// What two replicas must agree on: the rows, and every cell's clock.
const content = `
	SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
	UNION ALL
	SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
	ORDER BY 1`

func init() {
	log.SetFlags(0)
	log.SetPrefix("go: ")
	so, err := filepath.Abs(os.Getenv("STARLING_SO"))
	must(err)
	// A driver of its own name, which loads the extension into every connection that the pool opens. Without an entry
	// point's name mattn's driver asks for sqlite3_extension_init.
	sql.Register("sqlite3_starling", &sqlite3.SQLiteDriver{Extensions: []string{so}})
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func check(what string, condition bool) {
	if !condition {
		log.Fatal(what)
	}
}

// connect opens a file. _txlock makes Begin a BEGIN IMMEDIATE, which waits for the write lock where it can.
func connect(path string) *sql.DB {
	db, err := sql.Open("sqlite3_starling", "file:"+path+"?_busy_timeout=5000&_journal_mode=WAL&_txlock=immediate")
	must(err)
	return db
}

func version(db *sql.DB) (version int64) {
	must(db.QueryRow("SELECT crsql_db_version()").Scan(&version))
	return version
}

// query returns all rows. A value comes as int64, float64, string, []byte or nil, and goes back in as the same.
func query(db interface {
	Query(string, ...any) (*sql.Rows, error)
}, text string, parameters ...any) (all [][]any) {
	rows, err := db.Query(text, parameters...)
	must(err)
	defer rows.Close()
	columns, err := rows.Columns()
	must(err)
	for rows.Next() {
		row, places := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			places[i] = &row[i]
		}
		must(rows.Scan(places...))
		all = append(all, row)
	}
	must(rows.Err())
	return all
}

func dump(db *sql.DB) string {
	var lines strings.Builder
	for _, row := range query(db, content) {
		fmt.Fprintln(&lines, row[0])
	}
	return lines.String()
}

// copyChanges is the portable way: nine columns out of one file, nine values into the other. It returns how many.
func copyChanges(source, target *sql.DB, since int64) int {
	changes := query(source, `SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq
		FROM crsql_changes WHERE db_version > ?`, since)
	tx, err := target.Begin()
	must(err)
	insert, err := tx.Prepare("INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)")
	must(err)
	for _, change := range changes {
		_, err := insert.Exec(change...)
		must(err)
	}
	must(insert.Close())
	must(tx.Commit())
	return len(changes)
}

// pull is the fast way: whole transactions as blobs, and only those that the target does not have.
func pull(target, source *sql.DB) {
	have := query(target, "SELECT starling_vector()")[0][0]
	// One transaction, so one snapshot, for the changesets and for the vector that they lead to. It only reads: a plain
	// BEGIN on a connection of its own, where Begin would take the write lock.
	reader, err := source.Conn(context.Background())
	must(err)
	defer reader.Close()
	snapshot := connection{reader}
	snapshot.exec("BEGIN")
	changesets := query(snapshot, "SELECT changeset FROM starling_changesets(?, 0)", have)
	leadsTo := query(snapshot, "SELECT starling_answer_vector()")[0][0]
	snapshot.exec("COMMIT")

	tx, err := target.Begin()
	must(err)
	for _, row := range changesets {
		query(tx, "SELECT starling_merge(?)", row[0])
	}
	query(tx, "SELECT starling_claim(?)", leadsTo)
	must(tx.Commit())
}

type connection struct{ *sql.Conn }

func (c connection) Query(text string, parameters ...any) (*sql.Rows, error) {
	return c.QueryContext(context.Background(), text, parameters...)
}

func (c connection) exec(text string) {
	_, err := c.ExecContext(context.Background(), text)
	must(err)
}

func exec(db *sql.DB, text string, parameters ...any) {
	_, err := db.Exec(text, parameters...)
	must(err)
}

// failAndRollBack shows that what is rolled back was never there.
func failAndRollBack(db *sql.DB) {
	versionBefore, before := version(db), dump(db)
	tx, err := db.Begin()
	must(err)
	_, err = tx.Exec("UPDATE machines SET status = 'lost'")
	must(err)
	_, err = tx.Exec("INSERT INTO machines(id) VALUES('m-1')")
	var refused sqlite3.Error
	check("a key was inserted twice", errors.As(err, &refused) && refused.Code == sqlite3.ErrConstraint)
	must(tx.Rollback())
	check("a rollback left something", version(db) == versionBefore && dump(db) == before)
}

func main() {
	one, two := connect("one.db"), connect("two.db")
	for _, db := range []*sql.DB{one, two} {
		exec(db, table)
		exec(db, "SELECT crsql_as_crr('machines')")
	}

	// Both are written to; then each takes what the other has.
	insert := "INSERT INTO machines VALUES(?, ?, ?, ?, ?)"
	exec(one, insert, "m-1", nil, int64(9007199254740993), 2.0, []byte{0x00, 0xff})
	exec(one, insert, "m-2", "läuft", -1, 0.1, []byte{})
	exec(two, insert, "m-3", "new", 3, nil, nil)
	copyChanges(one, two, 0)
	copyChanges(two, one, 0)
	check("the files differ", dump(one) == dump(two))

	// From then on only what is newer than the version seen last.
	seen := version(one)
	exec(one, "UPDATE machines SET load = 3.0 WHERE id = 'm-1'")
	check("one changed cell is one change", copyChanges(one, two, seen) == 1)
	check("the files differ", dump(one) == dump(two))

	failAndRollBack(one)

	// Another connection (here: another pool) sees what is committed, at once.
	other := connect("one.db")
	last := version(other)
	exec(one, "UPDATE machines SET serial = 2 WHERE id = 'm-2'")
	check("the commit is not seen", version(one) == last+1 && version(other) == last+1)
	must(other.Close())

	// A conflict: both write one cell. Both files end with the same value, whoever merges first.
	exec(one, "UPDATE machines SET status = 'sick' WHERE id = 'm-1'")
	exec(two, "UPDATE machines SET status = 'healthy' WHERE id = 'm-1'")
	exec(two, "DELETE FROM machines WHERE id = 'm-3'")
	pull(one, two)
	pull(two, one)
	check("the files differ", dump(one) == dump(two))

	// Closing needs no call before it.
	must(one.Close())
	must(two.Close())
	sqlite, _, _ := sqlite3.Version()
	fmt.Println("ok go", strings.TrimPrefix(runtime.Version(), "go"), "sqlite", sqlite)
}
