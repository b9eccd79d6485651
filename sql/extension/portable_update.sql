CREATE TRIGGER {trigger} AFTER UPDATE OF {columns} ON {table} WHEN {same_key} AND ({mask}) <> 0 BEGIN
  INSERT INTO {vt}(tag, mask, {key_slots}) VALUES({tag}, {mask}, {new_keys});
END
