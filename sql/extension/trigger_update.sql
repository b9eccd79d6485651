CREATE TRIGGER {trigger} AFTER UPDATE OF {columns} ON {table} WHEN {same_key} BEGIN
  SELECT 1 FROM {vt}({tag}, {mask}, {new_keys});
END
