CREATE TRIGGER {trigger} AFTER DELETE ON {table} BEGIN
  SELECT 1 FROM {vt}({tag}, 0, {old_keys});
END
