(SELECT p.{key} FROM {table} AS p
  WHERE {same_list} AND p.{order} COLLATE BINARY <= r.{order}
    AND NOT (p.{order} COLLATE BINARY = r.{order} AND NOT {p_before_r})
  ORDER BY p.{order} COLLATE BINARY DESC, {p_keys_desc} LIMIT 1) AS {after}
