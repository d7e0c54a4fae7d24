-- Every change of a batch, each of them whole or not at all: see store.py, which names a command and its arguments.
-- The names of the keys and what is in them stay: batches outlive an upgrade.

local record, todo, leases, chunks, tasks, failed, index = unpack(KEYS)
local command = table.remove(ARGV, 1)
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000

local function state() return redis.call('HGET', record, 'state') end

local function owns(owner, chunk) return redis.call('HGET', chunks, chunk .. ':owner') == owner end

local function drop(chunk)
  redis.call('ZREM', leases, chunk)
  redis.call('HDEL', chunks, chunk, chunk .. ':owner', chunk .. ':claims')
end

local function fail(task, reason)
  redis.call('HINCRBY', record, 'failed', redis.call('HSET', failed, task, reason))
end

local function keep(seconds)
  for number = 1, 6 do redis.call('EXPIRE', KEYS[number], seconds) end
end

local function keep_for_good()
  for number = 1, 6 do redis.call('PERSIST', KEYS[number]) end
end

local function offer(ids)
  local chunk = redis.call('HINCRBY', record, 'sequence', 1)
  redis.call('HSET', chunks, chunk, ids)
  redis.call('ZADD', leases, 0, chunk)
end

-- The last chunks get smaller, so that runners come to their end together: each holds one in its model and one ahead.
local function next_size(least)
  local size, left = tonumber(redis.call('HGET', record, 'size')), redis.call('LLEN', todo)
  return math.min(size, math.max(least, math.ceil(left / 4)))
end

local function cancel(seconds, note)
  redis.call('HSET', record, 'state', 'cancelled', 'note', note)
  redis.call('HDEL', record, 'unended')
  keep(seconds)
end

local commands = {}

-- batch, tasks of a chunk
function commands.start()
  redis.call('ZADD', index, now, ARGV[1])
  redis.call('HSET', record, 'state', 'running', 'created', now, 'size', ARGV[2])
  keep_for_good()
end

-- seconds that a listing is kept, task...
function commands.add()
  if state() ~= 'listing' and state() ~= 'running' then return 0 end
  for number = 2, #ARGV do
    if redis.call('SADD', tasks, ARGV[number]) == 1 then
      redis.call('RPUSH', todo, ARGV[number])
      redis.call('HINCRBY', record, 'total', 1)
    end
  end
  if state() == 'listing' then keep(ARGV[1]) end
  return 1
end

-- most runs in a row that end without a word, seconds that an ended batch is kept, note
-- 0: the batch isn't running, perhaps since this run would be one too many.
function commands.start_run()
  if state() ~= 'running' then return 0 end
  if redis.call('HINCRBY', record, 'unended', 1) <= tonumber(ARGV[1]) then return 1 end
  cancel(ARGV[2], ARGV[3])
  return 0
end

function commands.end_run()
  if tonumber(redis.call('HGET', record, 'unended') or 0) > 0 then redis.call('HINCRBY', record, 'unended', -1) end
end

-- owner, seconds of the lease, most claims of a chunk, least tasks of a chunk unless all are smaller
-- A chunk whose lease has run out, else new tasks, else the closing. Nothing: {'', ''}; not running: {}.
function commands.claim()
  local owner, lease, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
  if state() ~= 'running' then return {} end
  redis.call('HSETNX', record, 'started', now)
  while true do
    local chunk = redis.call('ZRANGE', leases, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1)[1]
    if not chunk then
      local ids = redis.call('LPOP', todo, next_size(tonumber(ARGV[4])))
      if ids then
        offer(table.concat(ids, ','))
      elseif redis.call('ZCARD', leases) > 0 then
        return {'', ''}
      else
        redis.call('HSET', chunks, 'closing', '')
        redis.call('ZADD', leases, 0, 'closing')
      end
    else
      local ids = redis.call('HGET', chunks, chunk)
      local claims = redis.call('HINCRBY', chunks, chunk .. ':claims', 1)
      if claims <= most or chunk == 'closing' then
        redis.call('ZADD', leases, now + lease, chunk)
        redis.call('HSET', chunks, chunk .. ':owner', owner)
        return {chunk, ids}
      end
      drop(chunk)
      if string.find(ids, ',') then
        for task in string.gmatch(ids, '%d+') do offer(task) end
      else
        fail(ids, 'Whoever works on it dies: see the log of the worker. Memory may be too small for this image.')
      end
    end
  end
end

-- owner, seconds of the lease, chunk...
function commands.renew()
  for number = 3, #ARGV do
    if owns(ARGV[1], ARGV[number]) then redis.call('ZADD', leases, 'GT', now + ARGV[2], ARGV[number]) end
  end
  return state() == 'running' and 1 or 0
end

-- owner, chunk, seconds
function commands.begin()
  if state() ~= 'running' or not owns(ARGV[1], ARGV[2]) then return 0 end
  redis.call('ZADD', leases, 'GT', now + ARGV[3], ARGV[2])
  return 1
end

-- owner, chunk, '1' for at once
function commands.release()
  if not owns(ARGV[1], ARGV[2]) then return end
  redis.call('HDEL', chunks, ARGV[2] .. ':owner', ARGV[2] .. ':claims')
  if ARGV[3] == '1' then redis.call('ZADD', leases, 0, ARGV[2]) end
end

-- owner, chunk, tasks done, tasks skipped, (task, why it failed)...
function commands.finish()
  if not owns(ARGV[1], ARGV[2]) then return 0 end
  drop(ARGV[2])
  redis.call('HINCRBY', record, 'done', ARGV[3])
  redis.call('HINCRBY', record, 'skipped', ARGV[4])
  for number = 5, #ARGV, 2 do fail(ARGV[number], ARGV[number + 1]) end
  redis.call('HSET', record, 'updated', now)
  redis.call('HDEL', record, 'note', 'unended')
  return 1
end

-- owner, seconds that an ended batch is kept, missing task...
function commands.close()
  if not owns(ARGV[1], 'closing') then return 0 end
  drop('closing')
  for number = 3, #ARGV do redis.call('RPUSH', todo, ARGV[number]) end
  if #ARGV > 2 then
    redis.call('HINCRBY', record, 'done', 2 - #ARGV)
    redis.call('HINCRBY', record, 'rounds', 1)
  elseif state() == 'running' and redis.call('LLEN', todo) == 0 then
    redis.call('HSET', record, 'state', 'done')
    redis.call('HDEL', record, 'note')
    keep(ARGV[2])
  end
  return 1
end

-- text
function commands.note()
  if state() == 'running' then redis.call('HSET', record, 'note', ARGV[1]) end
end

-- seconds that an ended batch is kept, note
function commands.cancel()
  if state() == 'running' or state() == 'listing' then cancel(ARGV[1], ARGV[2]) end
end

function commands.resume()
  if state() == 'done' then
    for _, task in ipairs(redis.call('HKEYS', failed)) do redis.call('RPUSH', todo, task) end
    redis.call('DEL', failed)
    redis.call('HSET', record, 'failed', 0)
  elseif state() ~= 'cancelled' then
    return
  end
  redis.call('HSET', record, 'state', 'running', 'rounds', 0)
  redis.call('HDEL', record, 'note')
  keep_for_good()
end

return commands[command]()
