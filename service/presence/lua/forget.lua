-- Stop listing the incarnations whose lease ended at or before a moment.
-- KEYS: 1 leases   2 cards   ARGV: 1 milliseconds of the server's clock. Returns how many.
local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
for _, name in ipairs(names) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
end
return #names
