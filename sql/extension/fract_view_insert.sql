CREATE TRIGGER {trigger} INSTEAD OF INSERT ON {view} BEGIN
  SELECT RAISE(ABORT, {no_such_row}) WHERE NOT ({no_after}) AND NOT EXISTS (
    SELECT 1 FROM {table} AS x WHERE {is_after} AND {x_in_list});
  {untie}
  INSERT INTO {table}({columns}) VALUES({values});
END
