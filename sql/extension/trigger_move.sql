CREATE TRIGGER {trigger} AFTER UPDATE OF {key_columns} ON {table} WHEN NOT ({same_key}) BEGIN
  INSERT INTO {vt}(tag, {key_slots}) VALUES({delete_tag}, {old_keys});
  INSERT INTO {vt}(tag, {key_slots}) VALUES({insert_tag}, {new_keys});
END
