-- The cards of the incarnations that live.
-- KEYS: 1 leases   2 cards   Returns a list of JSON texts.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cards = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
  local card = redis.call('HGET', KEYS[2], name)
  if card then cards[#cards + 1] = card end
end
return cards
