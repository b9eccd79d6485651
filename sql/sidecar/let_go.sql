-- Tables that came back in another form than they went, or changed it, and that crsql_as_crr would refuse (2: missing).
SELECT count(*) FROM main.crsql_table AS c JOIN main.sqlite_master AS m ON m.type = 'table' AND m.name = c.name
WHERE c.active = 2
