CREATE TRIGGER {trigger} AFTER UPDATE ON {table} WHEN {same_key} BEGIN
{touches}END
