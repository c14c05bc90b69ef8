-- Count the sessions and users of a shard from what holds them, and read what its counters say. O(owners).
-- KEYS: 1 counters   2 users   3 ends of REST sessions   4 sessions of `rest`   5 owners that hold sockets
-- ARGV: 1 what the key of an owner's sessions begins with; all are of this shard's slot
-- Returns {counters (list of name, value…), users, ends, sessions of `rest`, owner, its sessions, owner…}
local found = {
  redis.call('HGETALL', KEYS[1]), redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[3]), redis.call('HLEN', KEYS[4])
}
for _, owner in ipairs(redis.call('SMEMBERS', KEYS[5])) do
  found[#found + 1] = owner
  found[#found + 1] = redis.call('HLEN', ARGV[1] .. owner)
end
return found
