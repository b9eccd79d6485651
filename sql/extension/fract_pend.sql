CREATE TRIGGER {trigger} AFTER {event} ON {table}
WHEN NEW.{order} IN (-1, 1, '-1', '1') AND crsql_internal_sync_bit() = 0 BEGIN
  UPDATE {table} SET {order} = CASE WHEN NEW.{order} IN (-1, '-1')
    THEN crsql_fract_key_between(NULL, (SELECT o.{order} FROM {table} AS o
      WHERE {in_list} AND starling_fract_is_key(o.{order}) ORDER BY o.{order} COLLATE BINARY LIMIT 1))
    ELSE crsql_fract_key_between((SELECT o.{order} FROM {table} AS o
      WHERE {in_list} AND starling_fract_is_key(o.{order}) ORDER BY o.{order} COLLATE BINARY DESC LIMIT 1), NULL) END
  WHERE {is_new_row};
END
