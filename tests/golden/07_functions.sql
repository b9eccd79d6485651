-- The functions that need no table.
SELECT hex(crsql_pack_columns(1, 'ab', x'00', NULL, -1, 200, 1.5));
SELECT quote(cell) FROM crsql_unpack_columns(crsql_pack_columns('a', 65535, -9223372036854775807, 0.5, x'01', NULL));
SELECT length(crsql_site_id()), crsql_site_id() = (SELECT site_id FROM crsql_site_id WHERE ordinal = 0);
SELECT crsql_db_version(), crsql_next_db_version(), crsql_next_db_version(42), crsql_rows_impacted(), crsql_internal_sync_bit();
SELECT crsql_config_get('merge-equal-values'), crsql_config_set('merge-equal-values', 1), crsql_config_get('merge-equal-values');
SELECT crsql_finalize();
SELECT length(uuid7()), length(uuid7_blob()), substr(uuid7(), 15, 1);
