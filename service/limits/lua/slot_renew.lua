-- Renew the leases of slots that are held; one that Redis had lost is held again.
-- KEYS: 1 the holders of a caller's slots (see slot_take.lua)   ARGV: 1 the lease in milliseconds   2.. the slots' names
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 2, #ARGV do
  redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[at])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
