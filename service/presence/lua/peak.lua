-- Raise the peaks of a fleet with several shards to a total that was just counted.
-- KEYS: 1 peaks (hash, of shard 0)   ARGV: 1 day YYYY-MM-DD   2 users online   Time is the server's, in seconds.
local now = redis.call('TIME')[1]
local peak = redis.call('HMGET', KEYS[1], 'all', 'day', 'date')
local online = tonumber(ARGV[2])
if online > tonumber(peak[1] or 0) then
  redis.call('HSET', KEYS[1], 'all', online, 'all_at', now)
end
if peak[3] ~= ARGV[1] or online > tonumber(peak[2] or 0) then
  redis.call('HSET', KEYS[1], 'date', ARGV[1], 'day', online, 'day_at', now)
end
return online
