-- Renew the lease of one incarnation of a node.
-- KEYS: 1 leases (zset incarnation -> end in ms of the server's clock)
-- ARGV: 1 incarnation   2 milliseconds of lease   3 1 to begin it, 0 to renew it
-- Returns 1 while the lease held; 0 when it had ended or was gone: the incarnation is over, begin another.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] == '0' and (not ends or tonumber(ends) < now) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
