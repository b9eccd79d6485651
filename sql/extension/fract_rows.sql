SELECT {columns}, {order}, starling_fract_is_key({order}) FROM main.{table} WHERE {order} IS NOT NULL
ORDER BY {lists} starling_fract_is_key({order}) DESC, {order} COLLATE BINARY, {keys}
