crsql_fract_key_between(
    (SELECT x.{order} FROM {table} AS x WHERE {is_after}),
    (SELECT o.{order} FROM {table} AS o
      WHERE {in_list} AND {is_other} AND starling_fract_is_key(o.{order}) AND o.{order} COLLATE BINARY
        > coalesce((SELECT x.{order} FROM {table} AS x WHERE {is_after}), '')
      ORDER BY o.{order} COLLATE BINARY LIMIT 1))
