SELECT 1 FROM main.sqlite_master
WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND instr(sql, ?2) = 0 AND instr(sql, 'crsql_inbox_') = 0
  AND instr(sql, 'starling: a REAL key') = 0 AND instr(sql, 'crsql_fract_') = 0
  AND rowid > (SELECT min(rowid) FROM main.sqlite_master
               WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
                 AND (instr(sql, ?2) > 0 OR instr(sql, 'crsql_inbox_') > 0))
