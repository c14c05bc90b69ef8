-- Take a slot, if one is free. Redis' own clock; those whose lease has ended are free.
-- KEYS: 1 the holders of a caller's slots: zset of slot -> end of its lease, Unix milliseconds
-- ARGV: 1 the slot's name   2 how many the caller may hold   3 the lease in milliseconds
-- Returns 1 when it is taken (again: the lease is renewed), else 0.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
