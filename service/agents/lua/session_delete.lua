-- Forget a conversation.
-- KEYS: 1 the user's conversations (zset)   2 the conversation   ARGV: 1 its digest
-- Returns 1, or 0 when there was none.
if redis.call('TYPE', KEYS[1]).ok == 'zset' then redis.call('ZREM', KEYS[1], ARGV[1]) end
return redis.call('DEL', KEYS[2])
