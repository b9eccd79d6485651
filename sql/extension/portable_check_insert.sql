CREATE TRIGGER {trigger} BEFORE INSERT ON {table} WHEN {mask} BEGIN
  SELECT RAISE(ABORT, 'starling: a REAL key that equals an integer (such as 1.0) would be the same key as the integer here and another one elsewhere; store the integer, or give the key column a type');
END
