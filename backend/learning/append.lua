-- Log an event unless its annotation has a later one -> whether it was news. See events.py for what is kept.
local stream, newest, projects = unpack(KEYS)
local project, subject, stamp, event, most, kept = unpack(ARGV)
if subject ~= '' then
  local known = redis.call('HGET', newest, subject)
  if known and tonumber(known) >= tonumber(stamp) then return 0 end
  redis.call('HSET', newest, subject, stamp)
  redis.call('EXPIRE', newest, kept)
end
redis.call('XADD', stream, 'MAXLEN', '~', most, '*', 'event', event)
redis.call('EXPIRE', stream, kept)
redis.call('SADD', projects, project)
return 1
