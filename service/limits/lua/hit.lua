-- Count hits in sliding windows, each unless it would exceed its limit. Redis' own clock.
-- KEYS: one for each hit; outside Redis Cluster they may be of any slot
-- ARGV: for each hit its limit, the window in milliseconds, the cost
-- A key holds "<start of the current window, Unix milliseconds> <count of the one before> <count of the current one>"
-- and lives until neither counts. Returns four numbers for each: 1 if admitted else 0, both counts, and the
-- milliseconds since the current window began.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for i, key in ipairs(KEYS) do
  local limit, window, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local start, previous, current = now, 0, 0
  local kept = redis.call('GET', key)
  if kept then
    local a, b, c = string.match(kept, '^(%d+) (%d+) (%d+)$')
    start, previous, current = tonumber(a) or now, tonumber(b) or 0, tonumber(c) or 0
  end
  local again = start > now -- the clock went back: the window begins now, and nothing is forgotten
  if again then start = now end
  local elapsed = now - start
  if elapsed >= 2 * window then
    start, previous, current, elapsed = now, 0, 0, 0
  elseif elapsed >= window then
    start, previous, current, elapsed = start + window, current, 0, elapsed - window
  end
  local admitted = 0
  if math.floor(previous * (window - elapsed) / window) + current + cost <= limit then
    admitted, current = 1, current + cost
  end
  if admitted == 1 or again then
    redis.call('SET', key, string.format('%.0f %.0f %.0f', start, previous, current), 'PX', 2 * window - elapsed)
  end
  local at = 4 * i
  answers[at - 3], answers[at - 2], answers[at - 1], answers[at] = admitted, previous, current, elapsed
end
return answers
