SELECT s.id, s.site_id, o.ordinal, o.epoch,
  (SELECT value FROM main.crsql_master WHERE key = 'epoch_start'),
  (SELECT value FROM main.crsql_master WHERE key = 'file_id'),
  (SELECT value FROM main.crsql_master WHERE key = 'config.merge-equal-values'),
  (SELECT value FROM main.crsql_master WHERE key = 'starling.least_writer'),
  (SELECT value FROM main.crsql_master WHERE key = 'boot_id')
FROM main.crsql_master AS m
JOIN main.crsql_site AS s ON s.id = m.value
JOIN main.crsql_master AS n ON n.key = 'origin'
JOIN main.crsql_origin AS o ON o.ordinal = n.value
WHERE m.key = 'self'
