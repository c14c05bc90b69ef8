-- End the lease of one incarnation.
-- KEYS: 1 leases   2 cards   ARGV: 1 incarnation
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
