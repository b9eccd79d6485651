#!/usr/bin/env perl
# Two SQLite files that take each other's changes, with DBD::SQLite.
#
#     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so perl /path/to/example.pl
use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);
use DBD::SQLite::Constants qw(:dbd_sqlite_string_mode);

my $TABLE = 'CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)';

# What two replicas must agree on: the rows, and every cell's clock.
my $CONTENT = q{
    SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
    UNION ALL
    SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
    ORDER BY 1};

sub connect_to {
    my ($path) = @_;
    my $db = DBI->connect("dbi:SQLite:dbname=$path", '', '', {
        RaiseError         => 1,
        PrintError         => 0,
        sqlite_string_mode => DBD_SQLITE_STRING_MODE_UNICODE_STRICT,
    });
    $db->sqlite_enable_load_extension(1);
    $db->sqlite_load_extension($ENV{STARLING_SO});
    $db->sqlite_enable_load_extension(0);
    $db->sqlite_busy_timeout(5000);
    $db->do('PRAGMA journal_mode = WAL');
    return $db;
}

sub value {
    my ($db, $sql) = @_;
    return ($db->selectrow_array($sql))[0];
}

# Perl has one kind of scalar, and DBD::SQLite binds it as TEXT unless told otherwise: a blob must be named as one.
sub value_of_blob {
    my ($db, $sql, $blob) = @_;
    my $statement = $db->prepare($sql);
    $statement->bind_param(1, $blob, SQL_BLOB);
    $statement->execute;
    return $statement->fetchall_arrayref->[0][0];
}

sub version { return value($_[0], 'SELECT crsql_db_version()') }
sub content { return join "\n", @{ $_[0]->selectcol_arrayref($CONTENT) } }

# The portable way: nine columns out of one file, nine values into the other. Returns how many. The value's type is asked
# for and goes along, because the scalar does not keep it; then the two keys, which are blobs.
sub copy_changes {
    my ($source, $target, $since) = @_;
    my %type = (integer => SQL_INTEGER, real => SQL_REAL, blob => SQL_BLOB, text => SQL_VARCHAR, null => SQL_VARCHAR);
    my $changes = $source->selectall_arrayref(
        'SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq, typeof(val)
         FROM crsql_changes WHERE db_version > CAST(? AS INTEGER)', undef, $since);
    $target->do('BEGIN IMMEDIATE');
    my $insert = $target->prepare('INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)');
    for my $change (@$changes) {
        my @types = (SQL_VARCHAR, SQL_BLOB, SQL_VARCHAR, $type{ $change->[9] }, SQL_INTEGER, SQL_INTEGER, SQL_BLOB, SQL_INTEGER, SQL_INTEGER);
        $insert->bind_param($_ + 1, $change->[$_], $types[$_]) for 0 .. 8;
        $insert->execute;
    }
    $target->do('COMMIT');
    return scalar @$changes;
}

# The fast way: whole transactions as blobs, and only those that the target does not have.
sub pull {
    my ($target, $source) = @_;
    my $have = value($target, 'SELECT starling_vector()');
    $source->do('BEGIN');    # one snapshot for the changesets and for the vector that they lead to
    my $select = $source->prepare('SELECT changeset FROM starling_changesets(?, 0)');
    $select->bind_param(1, $have, SQL_BLOB);
    $select->execute;
    my @changesets = map { $_->[0] } @{ $select->fetchall_arrayref };
    my $leads_to = value($source, 'SELECT starling_answer_vector()');
    $source->do('COMMIT');
    $target->do('BEGIN IMMEDIATE');
    value_of_blob($target, 'SELECT starling_merge(?)', $_) for @changesets;
    value_of_blob($target, 'SELECT starling_claim(?)', $leads_to);
    $target->do('COMMIT');
    return;
}

sub check {
    my ($what, $condition) = @_;
    die "perl: $what\n" unless $condition;
    return;
}

my ($one, $two) = (connect_to('one.db'), connect_to('two.db'));
for my $db ($one, $two) {
    $db->do($TABLE);
    value($db, "SELECT crsql_as_crr('machines')");
}

# Both are written to; then each takes what the other has.
my $insert = $one->prepare('INSERT INTO machines VALUES(?, ?, ?, ?, ?)');
for my $machine (['m-1', undef, 9007199254740993, 2.0, "\x00\xff"], ['m-2', 'läuft', -1, 0.1, '']) {
    my @types = (SQL_VARCHAR, SQL_VARCHAR, SQL_INTEGER, SQL_REAL, SQL_BLOB);
    $insert->bind_param($_ + 1, $machine->[$_], $types[$_]) for 0 .. 4;
    $insert->execute;
}
$two->do("INSERT INTO machines VALUES('m-3', 'new', 3, NULL, NULL)");
copy_changes($one, $two, 0);
copy_changes($two, $one, 0);
check('the files differ', content($one) eq content($two));

# From then on only what is newer than the version seen last.
my $seen = version($one);
$one->do("UPDATE machines SET load = 3.0 WHERE id = 'm-1'");
check('one changed cell is one change', copy_changes($one, $two, $seen) == 1);
check('the files differ', content($one) eq content($two));

# What is rolled back was never there.
my $before = version($one) . content($one);
$one->do('BEGIN IMMEDIATE');
$one->do("UPDATE machines SET status = 'lost'");
check('a key was inserted twice', !eval { $one->do("INSERT INTO machines(id) VALUES('m-1')"); 1 });
check("the error is $@", $@ =~ /UNIQUE constraint failed: machines\.id/);
$one->do('ROLLBACK');
check('a rollback left something', $before eq version($one) . content($one));

# Another connection sees what is committed, at once.
my $other = connect_to('one.db');
my $last = version($other);
$one->do("UPDATE machines SET serial = 2 WHERE id = 'm-2'");
check('the commit is not seen', version($one) == $last + 1 && version($other) == $last + 1);
$other->disconnect;

# A conflict: both write one cell. Both files end with the same value, whoever merges first.
$one->do("UPDATE machines SET status = 'sick' WHERE id = 'm-1'");
$two->do("UPDATE machines SET status = 'healthy' WHERE id = 'm-1'");
$two->do("DELETE FROM machines WHERE id = 'm-3'");
pull($one, $two);
pull($two, $one);
check('the files differ', content($one) eq content($two));

# Closing needs no call before it; statement handles of one's own go first, as DBI wants it.
undef $insert;
my $sqlite = value($one, 'SELECT sqlite_version()');
$one->disconnect;
$two->disconnect;
print "ok perl $DBD::SQLite::VERSION sqlite $sqlite\n";
