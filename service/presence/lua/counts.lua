-- Read the counters of a shard; the work does not grow with sessions.
-- KEYS: 1 counters   2 peaks   3... users of today, yesterday and so on (HyperLogLogs), 30 of them
-- Returns {counters, peaks, users of 1 day, of 7, of 30}; the first two as lists of name, value, name, value…
local function seen(days) return redis.call('PFCOUNT', unpack(KEYS, 3, 2 + days)) end
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), seen(1), seen(7), seen(30)}
