-- Go on holding the lead of a call. One that is gone is not taken again: its release may have come first.
-- KEYS: 1 the lead   ARGV: 1 token  2 milliseconds until it ends
-- Returns 1 while it is ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
