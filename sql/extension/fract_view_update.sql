CREATE TRIGGER {trigger} INSTEAD OF UPDATE OF {columns} ON {view} BEGIN
  UPDATE {table} SET {sets} WHERE {is_old_row};
END
