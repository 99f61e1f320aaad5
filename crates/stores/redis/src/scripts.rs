//! The scripts that run inside Redis, each one atomic step on one partition.

use onelog_store::StoreError;

use crate::connection::Link;

/// A script and the name under which Redis keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Scripts {
    pub(crate) fenced: Vec<u8>,
    pub(crate) take_over: Vec<u8>,
    pub(crate) swap: Vec<u8>,
    pub(crate) claim: Vec<u8>,
    pub(crate) forget: Vec<u8>,
}

/// `KEYS[1]` the partition's record; the epoch, the position (empty: any), the log, the plan, then
/// commands. Runs them when the record is as expected, otherwise answers what it holds. Numbers
/// are compared as texts: Lua's are not exact.
const FENCED: &str = "
local found = redis.call('HMGET', KEYS[1], 'log', 'position', 'epoch', 'plan', 'chain')
if found[3] ~= ARGV[1] or (ARGV[2] ~= ''
    and (found[2] ~= ARGV[2] or found[1] ~= ARGV[3] or found[4] ~= ARGV[4])) then
  return found
end
local at = 5
while at < #ARGV do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
return 'OK'";

/// `KEYS[1]` the partition's record; `draw` or `join`, an epoch, the log, the plan, another log
/// whose record may be taken. `draw` takes the next epoch, above the given one as well; `join` takes
/// the given one unless a later one is there. Answers the epoch that the record has then, or, as a
/// text, the log whose record may not be taken. A position of another plan or log is forgotten.
/// `KEYS[2]`, where it is given: the record that the sink has where it has partitions and this one
/// has none, or the other way round. It gets the same log and epoch, and loses its position.
const TAKE_OVER: &str = "
local log = redis.call('HGET', KEYS[1], 'log')
if log and log ~= ARGV[3] and log ~= ARGV[5] then return log end
local other = KEYS[2] and redis.call('HGET', KEYS[2], 'log')
if other and other ~= ARGV[3] and other ~= ARGV[5] then return other end
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local given = tonumber(ARGV[2])
if ARGV[1] == 'draw' then
  epoch = math.max(epoch, given) + 1
elseif epoch > given then
  return epoch
else
  epoch = given
end
if log ~= ARGV[3] or redis.call('HGET', KEYS[1], 'plan') ~= ARGV[4]
    or (other and other ~= ARGV[3]) then
  redis.call('HDEL', KEYS[1], 'position')
end
redis.call('HSET', KEYS[1], 'log', ARGV[3], 'epoch', string.format('%.0f', epoch),
  'plan', ARGV[4])
if other then
  redis.call('HDEL', KEYS[2], 'position')
  redis.call('HSET', KEYS[2], 'log', ARGV[3], 'epoch', string.format('%.0f', epoch))
end
return epoch";

/// `KEYS[1]` the partition's record; the epoch, how many keys at most, the log, the position, the
/// plan, the chain's checksum, then for each mapping: its rows' life in seconds, what new rows begin with, what rows
/// begin and end with, the lists of new and gone keys. Answers how many keys of the budget are
/// left; 0: there may be more to do. When all is done the record gets its position. -1: another
/// epoch. -2: new rows are not there any more.
const SWAP: &str = "
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local left = tonumber(ARGV[2])
local function part(list)
  local names = redis.call('LRANGE', list, 0, math.min(left, 1000) - 1)
  redis.call('LTRIM', list, #names, -1)
  left = left - #names
  return names
end
for at = 7, #ARGV, 6 do
  local life, new, before, behind = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  while left > 0 do
    local names = part(ARGV[at + 5])
    if #names == 0 then break end
    for n = 1, #names do names[n] = before .. names[n] .. behind end
    redis.call('UNLINK', unpack(names))
  end
  while left > 0 do
    local names = part(ARGV[at + 4])
    if #names == 0 then break end
    for n = 1, #names do
      local name = before .. names[n] .. behind
      local done = redis.pcall('RENAME', new .. names[n], name)
      if type(done) == 'table' and done.err then
        redis.call('HDEL', KEYS[1], 'position')
        return -2
      end
      if life > 0 then redis.call('EXPIRE', name, life) end
    end
  end
end
if left > 0 then
  redis.call('HSET', KEYS[1], 'log', ARGV[3], 'position', ARGV[4], 'plan', ARGV[5],
    'chain', ARGV[6])
  redis.call('HDEL', KEYS[1], 'filling')
end
return left";

/// `KEYS[1]` the hash of owners; the sink, then the beginning and the end of each of its templates.
/// Writes that they are the sink's and answers nothing, unless some key fits one of them and a template
/// of another sink: then it answers that template, its owner and ours, and writes nothing.
const CLAIM: &str = "
local function nested(a, b)
  return string.sub(a, 1, #b) == b or string.sub(b, 1, #a) == a
end
local function ends(a, b)
  return #a >= #b and string.sub(a, #a - #b + 1) == b
end
local mark = '{$key}'
local owners = redis.call('HGETALL', KEYS[1])
for n = 1, #owners, 2 do
  local at = string.find(owners[n], mark, 1, true)
  if at and owners[n + 1] ~= '' and owners[n + 1] ~= ARGV[1] then
    local prefix, suffix = string.sub(owners[n], 1, at - 1), string.sub(owners[n], at + #mark)
    for m = 2, #ARGV, 2 do
      if nested(prefix, ARGV[m]) and (ends(suffix, ARGV[m + 1]) or ends(ARGV[m + 1], suffix)) then
        return {owners[n], owners[n + 1], ARGV[m] .. mark .. ARGV[m + 1]}
      end
    end
  end
end
for m = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[m] .. mark .. ARGV[m + 1], ARGV[1])
end
return {}";

/// `KEYS[1]` a record of former partitions; the epoch up to which it is deleted.
const FORGET: &str = "
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or tonumber(epoch) <= tonumber(ARGV[1]) then redis.call('DEL', KEYS[1]) end
return 0";

impl Scripts {
    /// Hands the scripts to a server.
    pub(crate) fn load(link: &mut Link) -> Result<Self, StoreError> {
        let mut load = |text: &str| -> Result<Vec<u8>, StoreError> {
            let what = "loading scripts into";
            match link.request(what, &[b"SCRIPT", b"LOAD", text.as_bytes()])? {
                redis::Value::BulkString(name) => Ok(name),
                other => Err(link.unexpected(what, &other)),
            }
        };
        Ok(Self {
            fenced: load(FENCED)?,
            take_over: load(TAKE_OVER)?,
            swap: load(SWAP)?,
            claim: load(CLAIM)?,
            forget: load(FORGET)?,
        })
    }
}
