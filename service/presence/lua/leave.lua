-- Stop counting sessions, once however often it is asked.
-- KEYS: 1 sessions of the owner   2 users   3 counters   (as in join.lua)
-- ARGV: session ids. Returns how many were counted until now.
local left = 0
for _, id in ipairs(ARGV) do
  local packed = redis.call('HGET', KEYS[1], id)
  if packed then
    redis.call('HDEL', KEYS[1], id)
    local device, user = string.match(packed, '^(%l+)\31[^\31]*\31[^\31]*\31(.*)$')
    redis.call('HINCRBY', KEYS[3], device, -1)
    if redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
      redis.call('HDEL', KEYS[2], user)
      redis.call('HINCRBY', KEYS[3], 'users', -1)
    end
    left = left + 1
  end
end
return left
