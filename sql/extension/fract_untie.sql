UPDATE {table} SET {order} = starling_fract_nth_key({below}, {tied}, (SELECT count(*) FROM {table} AS o
      WHERE {in_list} AND {is_other} AND starling_fract_is_key(o.{order}) AND {up_to_row}
        AND o.{order} COLLATE BINARY > coalesce({below}, '') AND o.{order} COLLATE BINARY <= {tied}),
    (SELECT count(*) FROM {table} AS o
      WHERE {in_list} AND {is_other} AND starling_fract_is_key(o.{order}) AND {o_up_to_after}
        AND o.{order} COLLATE BINARY > coalesce({below}, '') AND o.{order} COLLATE BINARY <= {tied}))
  WHERE {row_in_list} AND {row_is_other} AND {order} COLLATE BINARY = {tied} AND {row_up_to_after}
    AND EXISTS (SELECT 1 FROM {table} AS o
      WHERE {in_list} AND {is_other} AND o.{order} COLLATE BINARY = {tied} AND NOT {o_up_to_after});
