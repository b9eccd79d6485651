CREATE TRIGGER {trigger} BEFORE UPDATE OF {key_columns} ON {table} WHEN NOT ({same_key}) AND EXISTS (SELECT 1 FROM {table} WHERE {match_new}) BEGIN
  INSERT INTO {vt}(tag, {key_slots}) VALUES({tag}, {keys_before});
END
