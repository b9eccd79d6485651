-- Ordered lists by fractional indexing.
PRAGMA trusted_schema = OFF;
SELECT crsql_fract_key_between(NULL, NULL), crsql_fract_key_between('a0', NULL), crsql_fract_key_between(NULL, 'a0'), crsql_fract_key_between('a0', 'a1');
CREATE TABLE todo(id INTEGER PRIMARY KEY, list TEXT, ord TEXT, title TEXT NOT NULL DEFAULT 'untitled');
SELECT crsql_as_crr('todo');
SELECT crsql_fract_as_ordered('todo', 'ord', 'list');
SELECT type, name, tbl_name FROM sqlite_master WHERE name LIKE '%fractindex%' ORDER BY name;
INSERT INTO todo(id, list, ord, title) VALUES(1, 'home', 1, 'sweep'), (2, 'home', 1, 'dust'), (3, 'home', -1, 'wake up'), (4, 'work', 1, 'read');
SELECT id, ord FROM todo WHERE list = 'home' ORDER BY ord;
INSERT INTO todo_fractindex(id, list, after_id) VALUES(5, 'home', 1);
SELECT * FROM todo_fractindex WHERE list = 'home' ORDER BY ord;
UPDATE todo_fractindex SET after_id = NULL WHERE id = 2;
UPDATE todo SET ord = 1 WHERE id = 3;
SELECT id, ord, after_id FROM todo_fractindex WHERE list = 'home' ORDER BY ord;
SELECT [table], hex(pk), cid, val, col_version FROM crsql_changes WHERE cid = 'ord' ORDER BY pk;
-- Another replica appended to the same list at the same time: one key, two rows. What comes between tells them apart.
INSERT INTO crsql_changes VALUES('todo', crsql_pack_columns(6), 'list', 'home', 1, 1, x'01', 1, 0), ('todo', crsql_pack_columns(6), 'ord', 'a2', 1, 1, x'01', 1, 1), ('todo', crsql_pack_columns(6), 'title', 'tie', 1, 1, x'01', 1, 2);
SELECT id, ord, after_id FROM todo_fractindex WHERE list = 'home' ORDER BY ord, id;
INSERT INTO todo_fractindex(id, list, after_id) VALUES(7, 'home', 3);
SELECT id, ord, after_id FROM todo_fractindex WHERE list = 'home' ORDER BY ord, id;
SELECT crsql_as_table('todo');
SELECT count(*) FROM sqlite_master WHERE name LIKE '%fractindex%';
