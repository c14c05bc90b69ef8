-- Count the sessions and users of a shard from the hashes that hold them, and read what its counters say. O(owners).
-- KEYS: 1 counters   2 users   3 ends of REST sessions   4 sessions of `rest`   5... sessions of each other owner
-- Returns {counters (list of name, value…), users, ends, sessions of `rest`, sessions of each other owner…}
local found = {redis.call('HGETALL', KEYS[1]), redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[3])}
for i = 4, #KEYS do found[i] = redis.call('HLEN', KEYS[i]) end
return found
