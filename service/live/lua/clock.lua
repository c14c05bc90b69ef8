-- The clock of the server that gives the stream's entries their ids; in a cluster, of the stream's own node.
-- KEYS: 1 the stream
-- Returns Unix time in milliseconds.
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)
