CREATE TRIGGER {trigger} AFTER UPDATE OF {columns} ON {table} WHEN {same_key} BEGIN
  SELECT {vt}({tag}, {mask}, {new_keys});
END
