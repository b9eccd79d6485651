CREATE TRIGGER {trigger} BEFORE INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE {match_new}) BEGIN
  INSERT INTO {vt}(tag, {key_slots}) VALUES({tag}, {keys_before});
END
