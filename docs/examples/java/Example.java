// Two SQLite files that take each other's changes, with JDBC and org.xerial's sqlite-jdbc.
//
//     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so java -cp /usr/share/java/sqlite-jdbc.jar /path/to/Example.java
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import org.sqlite.SQLiteConfig;
import org.sqlite.SQLiteJDBCLoader;

class Example {
    static final String TABLE =
        "CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)";

    // What two replicas must agree on: the rows, and every cell's clock.
    static final String CONTENT = """
        SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
        UNION ALL
        SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
        ORDER BY 1""";

    static Connection connect(String path) throws SQLException {
        SQLiteConfig config = new SQLiteConfig();
        config.enableLoadExtension(true); // the property enable_load_extension
        config.setBusyTimeout(5000);
        config.setJournalMode(SQLiteConfig.JournalMode.WAL);
        config.setTransactionMode(SQLiteConfig.TransactionMode.IMMEDIATE); // what setAutoCommit(false) begins
        Connection db = config.createConnection("jdbc:sqlite:" + path);
        String extension = Path.of(System.getenv("STARLING_SO")).toAbsolutePath().toString();
        rows(db, "SELECT load_extension(?)", extension);
        return db;
    }

    // All rows. A value comes as Integer, Long, Double, String, byte[] or null, and goes back in as the same.
    static List<Object[]> rows(Connection db, String sql, Object... parameters) throws SQLException {
        List<Object[]> rows = new ArrayList<>();
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            bind(statement, parameters);
            try (ResultSet result = statement.executeQuery()) {
                int columns = result.getMetaData().getColumnCount();
                while (result.next()) {
                    Object[] row = new Object[columns];
                    for (int i = 0; i < columns; i++) row[i] = result.getObject(i + 1);
                    rows.add(row);
                }
            }
        }
        return rows;
    }

    static void bind(PreparedStatement statement, Object... parameters) throws SQLException {
        for (int i = 0; i < parameters.length; i++) statement.setObject(i + 1, parameters[i]);
    }

    static void run(Connection db, String sql) throws SQLException {
        try (Statement statement = db.createStatement()) {
            statement.execute(sql);
        }
    }

    static long version(Connection db) throws SQLException {
        return ((Number) rows(db, "SELECT crsql_db_version()").get(0)[0]).longValue();
    }

    static String content(Connection db) throws SQLException {
        StringBuilder lines = new StringBuilder();
        for (Object[] row : rows(db, CONTENT)) lines.append(row[0]).append('\n');
        return lines.toString();
    }

    // The portable way: nine columns out of one file, nine values into the other. Returns how many.
    static int copyChanges(Connection source, Connection target, long since) throws SQLException {
        List<Object[]> changes = rows(source,
            "SELECT \"table\", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > ?", since);
        target.setAutoCommit(false);
        try (PreparedStatement insert = target.prepareStatement("INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
            for (Object[] change : changes) {
                bind(insert, change);
                insert.executeUpdate();
            }
        }
        target.commit();
        target.setAutoCommit(true);
        return changes.size();
    }

    // The fast way: whole transactions as blobs, and only those that the target does not have.
    static void pull(Connection target, Connection source) throws SQLException {
        Object have = rows(target, "SELECT starling_vector()").get(0)[0];
        run(source, "BEGIN"); // one snapshot for the changesets and for the vector that they lead to
        List<Object[]> changesets = rows(source, "SELECT changeset FROM starling_changesets(?, 0)", have);
        Object leadsTo = rows(source, "SELECT starling_answer_vector()").get(0)[0];
        run(source, "COMMIT");
        target.setAutoCommit(false);
        for (Object[] row : changesets) rows(target, "SELECT starling_merge(?)", row[0]);
        rows(target, "SELECT starling_claim(?)", leadsTo);
        target.commit();
        target.setAutoCommit(true);
    }

    static void insert(Connection db, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement("INSERT INTO machines VALUES(?, ?, ?, ?, ?)")) {
            bind(statement, values);
            statement.executeUpdate();
        }
    }

    // What is rolled back was never there.
    static void failAndRollBack(Connection db) throws SQLException {
        String before = version(db) + content(db);
        db.setAutoCommit(false);
        String error = "";
        try {
            run(db, "UPDATE machines SET status = 'lost'");
            run(db, "INSERT INTO machines(id) VALUES('m-1')");
        } catch (SQLException e) {
            error = e.getMessage();
        }
        db.rollback();
        db.setAutoCommit(true);
        check("a key was inserted twice", error.contains("UNIQUE constraint failed: machines.id"));
        check("a rollback left something", before.equals(version(db) + content(db)));
    }

    static void check(String what, boolean condition) {
        if (!condition) throw new IllegalStateException("java: " + what);
    }

    public static void main(String[] arguments) throws Exception {
        Connection one = connect("one.db"), two = connect("two.db");
        for (Connection db : List.of(one, two)) {
            run(db, TABLE);
            run(db, "SELECT crsql_as_crr('machines')");
        }

        // Both are written to; then each takes what the other has.
        insert(one, "m-1", null, 9007199254740993L, 2.0, new byte[] {0x00, (byte) 0xff});
        insert(one, "m-2", "l\u00e4uft", -1, 0.1, new byte[0]);
        insert(two, "m-3", "new", 3, null, null);
        copyChanges(one, two, 0);
        copyChanges(two, one, 0);
        check("the files differ", content(one).equals(content(two)));

        // From then on only what is newer than the version seen last.
        long seen = version(one);
        run(one, "UPDATE machines SET load = 3.0 WHERE id = 'm-1'");
        check("one changed cell is one change", copyChanges(one, two, seen) == 1);
        check("the files differ", content(one).equals(content(two)));

        failAndRollBack(one);

        // Another connection sees what is committed, at once.
        Connection other = connect("one.db");
        long last = version(other);
        run(one, "UPDATE machines SET serial = 2 WHERE id = 'm-2'");
        check("the commit is not seen", version(one) == last + 1 && version(other) == last + 1);
        other.close();

        // A conflict: both write one cell. Both files end with the same value, whoever merges first.
        run(one, "UPDATE machines SET status = 'sick' WHERE id = 'm-1'");
        run(two, "UPDATE machines SET status = 'healthy' WHERE id = 'm-1'");
        run(two, "DELETE FROM machines WHERE id = 'm-3'");
        pull(one, two);
        pull(two, one);
        check("the files differ", content(one).equals(content(two)));

        // Closing needs no call before it.
        Object sqlite = rows(one, "SELECT sqlite_version()").get(0)[0];
        one.close();
        two.close();
        System.out.println("ok java " + SQLiteJDBCLoader.getVersion() + " sqlite " + sqlite);
    }
}
