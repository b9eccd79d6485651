-- The dots of origin ?1 between the versions ?2 and ?3 (both exclusive) that have a record or a token here.
SELECT version FROM main.crsql_log
  WHERE origin = ?1 AND version IS NOT NULL AND version > ?2 AND version < ?3
UNION ALL
SELECT version FROM main.crsql_token WHERE origin = ?1 AND version > ?2 AND version < ?3
