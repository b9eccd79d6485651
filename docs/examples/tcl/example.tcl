# Two SQLite files that take each other's changes, with SQLite's own Tcl package.
#
#     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so tclsh /path/to/example.tcl
package require sqlite3

set table {CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)}

# What two replicas must agree on: the rows, and every cell's clock.
set content {
    SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
    UNION ALL
    SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
    ORDER BY 1
}

# A connection is a command: [one eval {SELECT ...}].
proc connect {name path} {
    sqlite3 $name $path
    $name timeout 5000
    $name enable_load_extension 1
    set so [file normalize $::env(STARLING_SO)]
    $name eval {SELECT load_extension($so)}
    $name enable_load_extension 0
    $name eval {PRAGMA journal_mode = WAL}
}

proc version {db} {
    $db onecolumn {SELECT crsql_db_version()}
}

proc content {db} {
    $db eval $::content
}

# The portable way: nine columns out of one file, nine values into the other. Returns how many. In Tcl every value is a
# string, so SQLite itself writes the value down (quote) and reads it again; @ binds the keys as blobs.
proc copy_changes {source target since} {
    set changes [$source eval {
        SELECT "table" AS name, pk, cid, quote(val), col_version, db_version, site_id, cl, seq
        FROM crsql_changes WHERE db_version > CAST($since AS INTEGER)
    }]
    $target transaction immediate {
        foreach {name pk cid val col_version db_version site_id cl seq} $changes {
            $target eval "INSERT INTO crsql_changes VALUES(\$name, @pk, \$cid, $val, \$col_version, \$db_version, @site_id, \$cl, \$seq)"
        }
    }
    expr {[llength $changes] / 9}
}

# The fast way: whole transactions as blobs, and only those that the target does not have.
proc pull {target source} {
    set have [$target onecolumn {SELECT starling_vector()}]
    $source transaction deferred { # one snapshot for the changesets and for the vector that they lead to
        set changesets [$source eval {SELECT changeset FROM starling_changesets(@have, 0)}]
        set leads_to [$source onecolumn {SELECT starling_answer_vector()}]
    }
    $target transaction immediate {
        foreach changeset $changesets {
            $target eval {SELECT starling_merge(@changeset)}
        }
        $target eval {SELECT starling_claim(@leads_to)}
    }
}

proc check {what condition} {
    if {![uplevel 1 [list expr $condition]]} {
        puts stderr "tcl: $what"
        exit 1
    }
}

proc same {} {
    check "the files differ" {[content one] eq [content two]}
}

foreach {name path} {one one.db two two.db} {
    connect $name $path
    $name eval $table
    $name eval {SELECT crsql_as_crr('machines')}
}

# Both are written to; then each takes what the other has.
set status "l\u00e4uft"
set serial 9007199254740993
set photo [binary format H* 00ff]
one eval {INSERT INTO machines VALUES('m-1', NULL, $serial, 2.0, @photo)}
one eval {INSERT INTO machines VALUES('m-2', $status, -1, 0.1, x'')}
two eval {INSERT INTO machines VALUES('m-3', 'new', 3, NULL, NULL)}
copy_changes one two 0
copy_changes two one 0
same

# From then on only what is newer than the version seen last.
set seen [version one]
one eval {UPDATE machines SET load = 3.0 WHERE id = 'm-1'}
check "one changed cell is one change" {[copy_changes one two $seen] == 1}
same

# What is rolled back was never there: transaction rolls back when its script fails.
set before [list [version one] [content one]]
set failed [catch {
    one transaction immediate {
        one eval {UPDATE machines SET status = 'lost'}
        one eval {INSERT INTO machines(id) VALUES('m-1')}
    }
} error]
check "a key was inserted twice" {$failed && $error eq "UNIQUE constraint failed: machines.id"}
check "a rollback left something" {$before eq [list [version one] [content one]]}

# Another connection sees what is committed, at once.
connect other one.db
set last [version other]
one eval {UPDATE machines SET serial = 2 WHERE id = 'm-2'}
check "the commit is not seen" {[version one] == $last + 1 && [version other] == $last + 1}
other close

# A conflict: both write one cell. Both files end with the same value, whoever merges first.
one eval {UPDATE machines SET status = 'sick' WHERE id = 'm-1'}
two eval {UPDATE machines SET status = 'healthy' WHERE id = 'm-1'}
two eval {DELETE FROM machines WHERE id = 'm-3'}
pull one two
pull two one
same

# Closing needs no call before it.
set sqlite [one onecolumn {SELECT sqlite_version()}]
one close
two close
puts "ok tcl [package require sqlite3] sqlite $sqlite"
