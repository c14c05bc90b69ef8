-- Write something that is gone soon, as the capabilities' scripts write.
-- KEYS: 1 any   ARGV: 1 milliseconds until it is gone
return redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
