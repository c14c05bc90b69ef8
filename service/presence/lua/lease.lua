-- Renew the lease of one incarnation of a node, and show its card.
-- KEYS: 1 leases (zset incarnation -> end in ms of the server's clock)   2 cards (hash incarnation -> JSON)
-- ARGV: 1 incarnation   2 milliseconds of lease   3 1 to begin it, 0 to renew it   4 card
-- Returns 1 while the lease held; 0 when it had ended or was gone: the incarnation is over, begin another.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] == '0' and (not ends or tonumber(ends) < now) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
return 1
