CREATE TRIGGER {trigger} AFTER INSERT ON {table} BEGIN
  INSERT INTO {vt}(tag, {key_slots}) VALUES({tag}, {new_keys});
END
