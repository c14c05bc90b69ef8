-- Keep exchanges at the end of a conversation, drop the oldest beyond its bounds, and list it among its user's.
-- KEYS: 1 the user's conversations (zset digest -> Unix ms of the last exchange)   2 the conversation (hash)
-- ARGV: 1 digest   2 session_id   3 title   4 begun, Unix ms   5 ended, Unix ms   6 seconds to keep it
--       7 most messages   8 most bytes   9 most conversations; then for each exchange, within 7 and 8 by itself: id,
--       messages, JSON
-- The other conversations' keys are made from KEYS[1]: they have its hash tag.
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then redis.call('DEL', KEYS[1]) end  -- whatever it was, it is not ours
if redis.call('TYPE', KEYS[2]).ok ~= 'hash' or redis.call('HEXISTS', KEYS[2], 'order') == 0 then
  redis.call('DEL', KEYS[2])
end

local order, messages, bytes = {}, 0, 0  -- of each exchange: id, messages, bytes; the oldest first

local function take(id, count, size)
  order[#order + 1] = {id, count, size}
  messages, bytes = messages + count, bytes + size
end

for id, count, size in string.gmatch(redis.call('HGET', KEYS[2], 'order') or '', '(%x+):(%d+):(%d+)') do
  take(id, tonumber(count), tonumber(size))
end
for i = 10, #ARGV, 3 do
  -- A call is repeated when nobody knows whether the first was heard.
  if redis.call('HSETNX', KEYS[2], 'x' .. ARGV[i], ARGV[i + 2]) == 1 then
    take(ARGV[i], tonumber(ARGV[i + 1]), #ARGV[i + 2])
  end
end
while order[1] and (messages > tonumber(ARGV[7]) or bytes > tonumber(ARGV[8])) do
  local oldest = table.remove(order, 1)
  redis.call('HDEL', KEYS[2], 'x' .. oldest[1])
  messages, bytes = messages - oldest[2], bytes - oldest[3]
end
for i, exchange in ipairs(order) do order[i] = table.concat(exchange, ':') end

-- Not beyond the server's own time: a node whose clock is fast would stay at the head of the list.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = math.max(math.min(tonumber(ARGV[5]), now), tonumber(redis.call('HGET', KEYS[2], 'last') or 0) or 0)
redis.call('HSETNX', KEYS[2], 'created', ARGV[4])
redis.call('HSETNX', KEYS[2], 'title', ARGV[3])
redis.call('HSET', KEYS[2], 'id', ARGV[2], 'messages', messages, 'last', last, 'order', table.concat(order, ' '))
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('ZADD', KEYS[1], last, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[6])

local excess = redis.call('ZCARD', KEYS[1]) - ARGV[9]
if excess > 0 then
  for _, digest in ipairs(redis.call('ZRANGE', KEYS[1], 0, excess)) do
    -- Not the one that was just spoken in, though a node whose clock is slow makes it look old.
    if excess > 0 and digest ~= ARGV[1] then
      redis.call('ZREM', KEYS[1], digest)
      redis.call('DEL', KEYS[1] .. ':' .. digest)
      excess = excess - 1
    end
  end
end
return 1
