# Two SQLite files that take each other's changes, with the sqlite3 gem.
#
#     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so ruby /path/to/example.rb
require 'sqlite3'

TABLE = 'CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)'

# What two replicas must agree on: the rows, and every cell's clock.
CONTENT = <<~SQL
  SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
  UNION ALL
  SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
  ORDER BY 1
SQL

COLUMNS = '"table", pk, cid, val, col_version, db_version, site_id, cl, seq'

def connect(path)
  db = SQLite3::Database.new(path)
  db.busy_timeout = 5000
  db.enable_load_extension(true)
  db.load_extension(File.expand_path(ENV.fetch('STARLING_SO')))
  db.enable_load_extension(false)
  db.execute('PRAGMA journal_mode = WAL')
  db
end

def value(db, sql, *parameters)
  db.get_first_value(sql, parameters)
end

def version(db)
  value(db, 'SELECT crsql_db_version()')
end

# The portable way: nine columns out of one file, nine values into the other. Returns how many. Blobs come as binary
# strings (ASCII-8BIT), and binary strings go in as blobs.
def copy_changes(source, target, since)
  changes = source.execute("SELECT #{COLUMNS} FROM crsql_changes WHERE db_version > ?", [since])
  target.transaction(:immediate) do
    changes.each { |change| target.execute('INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)', change.to_a) }
  end
  changes.size
end

# The fast way: whole transactions as blobs, and only those that the target does not have.
def pull(target, source)
  have = value(target, 'SELECT starling_vector()')
  changesets = leads_to = nil
  source.transaction(:deferred) do # one snapshot for the changesets and for the vector that they lead to
    changesets = source.execute('SELECT changeset FROM starling_changesets(?, 0)', [have]).flatten
    leads_to = value(source, 'SELECT starling_answer_vector()')
  end
  target.transaction(:immediate) do
    changesets.each { |changeset| value(target, 'SELECT starling_merge(?)', changeset) }
    value(target, 'SELECT starling_claim(?)', leads_to)
  end
end

def check(what, condition)
  abort "ruby: #{what}" unless condition
end

one, two = %w[one.db two.db].map { |path| connect(path) }
[one, two].each do |db|
  db.execute(TABLE)
  value(db, "SELECT crsql_as_crr('machines')")
end

# Both are written to; then each takes what the other has.
insert = 'INSERT INTO machines VALUES(?, ?, ?, ?, ?)'
one.execute(insert, ['m-1', nil, 9_007_199_254_740_993, 2.0, "\x00\xff".b])
one.execute(insert, ['m-2', 'läuft', -1, 0.1, ''.b])
two.execute(insert, ['m-3', 'new', 3, nil, nil])
copy_changes(one, two, 0)
copy_changes(two, one, 0)
check('the files differ', one.execute(CONTENT) == two.execute(CONTENT))

# From then on only what is newer than the version seen last.
seen = version(one)
one.execute("UPDATE machines SET load = 3.0 WHERE id = 'm-1'")
check('one changed cell is one change', copy_changes(one, two, seen) == 1)
check('the files differ', one.execute(CONTENT) == two.execute(CONTENT))

# What is rolled back was never there: transaction rolls back when its block raises.
before = [version(one), one.execute(CONTENT)]
begin
  one.transaction(:immediate) do
    one.execute("UPDATE machines SET status = 'lost'")
    one.execute("INSERT INTO machines(id) VALUES('m-1')")
  end
  abort 'ruby: a key was inserted twice'
rescue SQLite3::ConstraintException
  check('a rollback left something', before == [version(one), one.execute(CONTENT)])
end

# Another connection sees what is committed, at once.
other = connect('one.db')
last = version(other)
one.execute("UPDATE machines SET serial = 2 WHERE id = 'm-2'")
check('the commit is not seen', version(one) == last + 1 && version(other) == last + 1)
other.close

# A conflict: both write one cell. Both files end with the same value, whoever merges first.
one.execute("UPDATE machines SET status = 'sick' WHERE id = 'm-1'")
two.execute("UPDATE machines SET status = 'healthy' WHERE id = 'm-1'")
two.execute("DELETE FROM machines WHERE id = 'm-3'")
pull(one, two)
pull(two, one)
check('the files differ', one.execute(CONTENT) == two.execute(CONTENT))

# Closing needs no call before it.
sqlite = value(one, 'SELECT sqlite_version()')
one.close
two.close
puts "ok ruby #{SQLite3::VERSION} sqlite #{sqlite}"
