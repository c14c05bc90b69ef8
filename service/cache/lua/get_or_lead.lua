-- What is kept; where there is nothing, the lead of the call for it.
-- KEYS: 1 the entry  2 its lead   ARGV: 1 token  2 milliseconds until the lead ends
-- Returns the entry, else 1 when the lead is ours now, 0 when another holds it.
local entry = redis.call('GET', KEYS[1])
if entry then return entry end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
