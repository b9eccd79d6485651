CREATE TRIGGER {trigger} AFTER UPDATE ON {table} WHEN {same_key} BEGIN
  INSERT INTO {vt}(tag, {key_slots}) VALUES({tag}, {new_keys});
END
