-- Raise the moments of flushes, and read them all: one is never lowered, so saying it again is harmless.
-- KEYS: 1 hash: group ('*' all) -> Unix milliseconds
-- ARGV: pairs of a group and its moment in milliseconds; 0 is now, by this server's clock, and after every other
-- Returns this server's now in milliseconds, then pairs of group and moment.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local highest = 0
for _, moment in ipairs(redis.call('HVALS', KEYS[1])) do highest = math.max(highest, tonumber(moment) or 0) end
for i = 1, #ARGV, 2 do
  local moment = tonumber(ARGV[i + 1])
  if moment == 0 then moment = math.max(now, highest + 1) end
  local known = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0) or 0
  if moment > known then redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f', moment)) end
end
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, string.format('%.0f', now))
return answer
