CREATE INDEX {index} ON {table}(/* crsql_fract_as_ordered made it */ {columns})
