  INSERT INTO {vt}(tag, mask, {key_slots}) VALUES({tag}, {mask}, {new_keys});
