-- Give slots back. KEYS: 1 the holders of a caller's slots (see slot_take.lua)   ARGV: the slots' names
return redis.call('ZREM', KEYS[1], unpack(ARGV))
