CREATE TRIGGER {trigger} INSTEAD OF UPDATE OF {after_columns} ON {view}
WHEN NOT ({same_after} AND {same_list}) BEGIN
  SELECT RAISE(ABORT, {one_at_a_time}) WHERE NOT ({same_key}) OR NEW.{order} IS NOT OLD.{order};
  SELECT RAISE(ABORT, {after_itself}) WHERE {is_itself};
  SELECT RAISE(ABORT, {no_such_row}) WHERE NOT ({no_after}) AND NOT EXISTS (
    SELECT 1 FROM {table} AS x WHERE {is_after} AND {x_in_list});
  {untie}
  UPDATE {table} SET {order} = {new_key} WHERE {is_old_row};
END
