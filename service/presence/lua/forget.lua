-- Stop listing the incarnations whose lease is over.
-- KEYS: 1 leases   2 cards   Returns how many.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
for _, name in ipairs(names) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
end
return #names
