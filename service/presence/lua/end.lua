-- End the lease of one incarnation now; its name stays listed, so that anybody reaps what is left of it.
-- KEYS: 1 leases   2 cards   ARGV: 1 incarnation
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZADD', KEYS[1], 'XX', now - 1, ARGV[1])
