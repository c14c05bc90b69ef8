-- Count sessions, each once however often it is asked.
-- KEYS: 1 sessions of the owner (hash id -> packed)   2 users (hash user -> sessions)   3 counters (hash)
--       4 peaks (hash)   5 users of the day (HyperLogLog)
-- ARGV: 1 day YYYY-MM-DD   2 seconds to keep the day   then for each session: id, packed, user, device
-- Time is the server's (TIME), so that no node's clock can move a peak. Returns how many were new.
local new, online = 0, 0
for i = 3, #ARGV, 4 do
  local id, packed, user, device = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if redis.call('HSETNX', KEYS[1], id, packed) == 1 then
    new = new + 1
    redis.call('HINCRBY', KEYS[3], device, 1)
    redis.call('PFADD', KEYS[5], user)
    if redis.call('HINCRBY', KEYS[2], user, 1) == 1 then
      online = redis.call('HINCRBY', KEYS[3], 'users', 1)
    end
  end
end
if new > 0 then redis.call('EXPIRE', KEYS[5], ARGV[2]) end
if online == 0 then return new end
local now = redis.call('TIME')[1]
local peak = redis.call('HMGET', KEYS[4], 'all', 'day', 'date')
if online > tonumber(peak[1] or 0) then
  redis.call('HSET', KEYS[4], 'all', online, 'all_at', now)
end
if peak[3] ~= ARGV[1] or online > tonumber(peak[2] or 0) then
  redis.call('HSET', KEYS[4], 'date', ARGV[1], 'day', online, 'day_at', now)
end
return new
