CREATE VIEW {view} AS /* crsql_fract_as_ordered made it */
SELECT {columns}, {afters} FROM {table} AS r
