CREATE TRIGGER {trigger} AFTER UPDATE OF {columns} ON {table} WHEN {same_key} BEGIN
  INSERT INTO {vt}(tag, mask, {key_slots}) VALUES({tag}, {mask}, {new_keys});
END
