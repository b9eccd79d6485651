CREATE TRIGGER {trigger} AFTER DELETE ON {table} BEGIN
  SELECT {vt}({tag}, 0, {old_keys});
END
