-- Give the lead of a call up, if it is ours.
-- KEYS: 1 the lead   ARGV: 1 token
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
