-- Some of a user's conversations, the newest first.
-- KEYS: 1 the user's conversations (zset digest -> Unix ms of the last exchange)
-- ARGV: 1 Unix ms and 2 digest of the last one that was shown (+inf and '' to begin)   3 how many at the most
-- Returns of each: digest, Unix ms, then id, created, last, messages, title as the conversation has them.
-- The conversations' keys are made from KEYS[1]: they have its hash tag. Those that have ended leave the list here.
local found, most = {}, tonumber(ARGV[3])
local listed = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'WITHSCORES')
for i = 1, #listed, 2 do
  if #found == most then break end
  local digest, last = listed[i], listed[i + 1]
  if last ~= ARGV[1] or digest < ARGV[2] then
    local conversation = KEYS[1] .. ':' .. digest
    if redis.call('TYPE', conversation).ok == 'hash' then
      local known = redis.call('HMGET', conversation, 'id', 'created', 'last', 'messages', 'title')
      found[#found + 1] = {digest, last, unpack(known)}
    else
      redis.call('ZREM', KEYS[1], digest)
    end
  end
end
return found
