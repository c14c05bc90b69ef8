-- Which incarnations live, and which are over.
-- KEYS: 1 leases
-- Returns {now in ms, number alive, names of those that are over...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return {now, redis.call('ZCARD', KEYS[1]) - #over, unpack(over)}
