-- Keep what a call gave, and give its lead up, if it is ours.
-- KEYS: 1 the entry  2 its lead   ARGV: 1 the entry's bytes  2 milliseconds for which it is kept  3 token
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
return 1
