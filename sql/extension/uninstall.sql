-- For a program without the extension: prints the statements that free a file of Starling's triggers, so that the tables
-- are ordinary ones again. Run what it prints:
--
--     sqlite3 app.db < uninstall.sql > free.sql && sqlite3 app.db < free.sql
--
-- The last statement tells a sidecar not to make the triggers anew. Metadata and inboxes stay, for a later crsql_as_crr.
SELECT 'DROP TRIGGER "' || replace(name, '"', '""') || '";' AS statement
FROM sqlite_master
WHERE type = 'trigger' AND name LIKE '%\_\_crsql\_%' ESCAPE '\'
  AND (instr(sql, 'starling_extension_is_not_loaded') OR instr(sql, 'crsql_inbox_') OR instr(sql, 'starling: a REAL key'))
UNION ALL
SELECT 'UPDATE crsql_table SET active = 0;'
