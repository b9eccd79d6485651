CREATE TRIGGER {trigger} AFTER DELETE ON {table} BEGIN
  INSERT INTO {vt}(tag, {key_slots}) VALUES({tag}, {old_keys});
END
