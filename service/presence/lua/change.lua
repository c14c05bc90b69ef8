-- Count sessions or stop counting them, each once however often it is asked. Nothing else moves the counters.
-- KEYS: 1 sessions of the owner (hash id -> packed)   2 users (hash user -> sockets + weight * REST sessions)
--       3 counters (hash)   4 peaks (hash)   5 users of the day (HyperLogLog)
--       6 owners that hold sockets here (set)
--       7 ends of REST sessions (zset id -> milliseconds of the server's clock); given for the owner `rest` alone
-- ARGV: 1 day YYYY-MM-DD   2 seconds to keep the day   3 what a session adds to its user's number
--       4 1 when the fleet has this shard only, so that its peaks are the fleet's
--       5 how many REST sessions to end at the most, if their time has come   6 milliseconds a REST session may live
--       7 owner   8 how many REST sessions a user may have
--       then for each session: id, packed or '' to stop counting it, milliseconds it lives (0 for a socket)
-- packed: device letter, since, client, user, with \31 between; of a REST session, whose id begins with its user and
--       \31, device letter and client at once.
-- Time is the server's (TIME), so that no node's clock can move an end or a peak.
-- Returns {how many left, id of a REST session that was not counted because its user has as many as may be, id…}.
local DEVICES = {m = 'mobile', t = 'tablet', d = 'desktop', u = 'unknown'}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rest = KEYS[7] ~= nil
local came, left, online, refused = 0, 0, 0, {}

local function read(id, packed)
  local device = DEVICES[string.sub(packed, 1, 1)]
  if rest then return device, string.match(id, '^[^\31]*') end
  return device, string.match(packed, '[^\31]*$')
end

local function count(device, step)
  redis.call('HINCRBY', KEYS[3], device, step)
  if rest then redis.call('HINCRBY', KEYS[3], 'rest:' .. device, step) end
end

local function leave(id, packed)
  local device, user = read(id, packed)
  redis.call('HDEL', KEYS[1], id)
  if rest then redis.call('ZREM', KEYS[7], id) end
  count(device, -1)
  if redis.call('HINCRBY', KEYS[2], user, '-' .. ARGV[3]) <= 0 then
    redis.call('HDEL', KEYS[2], user)
    redis.call('HINCRBY', KEYS[3], 'users', -1)
  end
  left = left + 1
end

local function leave_if_there(id)
  local packed = redis.call('HGET', KEYS[1], id)
  if packed then leave(id, packed) elseif rest then redis.call('ZREM', KEYS[7], id) end
end

local function is_full(user)
  local number = redis.call('HGET', KEYS[2], user)
  return number and math.floor(number / ARGV[3]) >= tonumber(ARGV[8])
end

-- The same id with another user or device is another session: the old one leaves. Only `since` may differ.
local function is_counted(id, known, packed)
  local device, user = read(id, packed)
  local known_device, known_user = read(id, known)
  return device == known_device and user == known_user
end

-- False when the session is not counted. One that was is never refused, whatever its device has become.
local function join(id, packed)
  local device, user = read(id, packed)
  local known = redis.call('HGET', KEYS[1], id)
  if known then
    if is_counted(id, known, packed) then return true end
    leave(id, known)
  elseif rest and is_full(user) then
    return false
  end
  redis.call('HSET', KEYS[1], id, packed)
  count(device, 1)
  redis.call('PFADD', KEYS[5], user)
  if redis.call('HINCRBY', KEYS[2], user, ARGV[3]) == tonumber(ARGV[3]) then
    online = redis.call('HINCRBY', KEYS[3], 'users', 1)
  end
  came = came + 1
  return true
end

local function raise_peaks()
  local peak = redis.call('HMGET', KEYS[4], 'all', 'day', 'date')
  if online > tonumber(peak[1] or 0) then
    redis.call('HSET', KEYS[4], 'all', online, 'all_at', time[1])
  end
  if peak[3] ~= ARGV[1] or online > tonumber(peak[2] or 0) then
    redis.call('HSET', KEYS[4], 'date', ARGV[1], 'day', online, 'day_at', time[1])
  end
end

local at_most, lives = tonumber(ARGV[5]), tonumber(ARGV[6])
if rest and at_most > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now, 'LIMIT', 0, at_most)) do
    leave_if_there(id)
  end
  -- An end that no heartbeat of today could have set: the server's clock was set back since.
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[7], '(' .. now + lives, '+inf', 'LIMIT', 0, at_most)) do
    redis.call('ZADD', KEYS[7], now + lives, id)
  end
end
for i = 9, #ARGV, 3 do
  local id, packed = ARGV[i], ARGV[i + 1]
  if packed == '' then
    leave_if_there(id)
  elseif not join(id, packed) then
    refused[#refused + 1] = id
  elseif rest then
    -- GT: what another node heard later is not shortened.
    redis.call('ZADD', KEYS[7], 'GT', now + ARGV[i + 2], id)
  end
end
-- Listed with what it holds, at one moment: nothing can be held under a name that nobody knows to reap.
if not rest then
  redis.call(redis.call('EXISTS', KEYS[1]) == 1 and 'SADD' or 'SREM', KEYS[6], ARGV[7])
end
if came > 0 then redis.call('EXPIRE', KEYS[5], ARGV[2]) end
if online > 0 and ARGV[4] == '1' then raise_peaks() end
return {left, unpack(refused)}
