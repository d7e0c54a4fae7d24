-- Log events unless their annotation has a later one -> for each, whether it was news. See events.py for what is kept.
local stream, newest, projects = unpack(KEYS)
local project, most, kept = unpack(ARGV)
local answers = {}
for i = 4, #ARGV, 3 do
  local subject, stamp, event = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local known = subject ~= '' and redis.call('HGET', newest, subject)
  if known and tonumber(known) >= tonumber(stamp) then
    table.insert(answers, 0)
  else
    if subject ~= '' then redis.call('HSET', newest, subject, stamp) end
    redis.call('XADD', stream, 'MAXLEN', '~', most, '*', 'event', event)
    redis.call('SADD', projects, project)
    table.insert(answers, 1)
  end
end
redis.call('EXPIRE', newest, kept)
redis.call('EXPIRE', stream, kept)
return answers
