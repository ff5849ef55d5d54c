-- A token's verified claims, from the payload that the filter before hands on:
-- base64url (RFC 4648, 5) of JSON (RFC 8259). Strict: of a text that is not
-- that, names a key twice or is nested too deep, there are no claims.

local MAX_DEPTH = 32
local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local ESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
local value_at

local digit_of = {}
for index = 1, #DIGITS do digit_of[DIGITS:byte(index)] = index - 1 end

local function decoded(payload)
  local bytes, bits, count = {}, 0, 0
  for index = 1, #payload do
    local digit = digit_of[payload:byte(index)] or error("no base64url")
    bits, count = bits * 64 + digit, count + 6
    if count >= 8 then
      count = count - 8
      bytes[#bytes + 1] = string.char(math.floor(bits / 2 ^ count))
      bits = bits % 2 ^ count
    end
  end
  return table.concat(bytes)
end

local function after_space(text, at)
  return text:match("^[ \t\r\n]*()", at)
end

local function utf8_of(code)
  local char, floor = string.char, math.floor
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 0x40), 0x80 + code % 0x40) end
  local last = char(0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  if code < 0x10000 then return char(0xE0 + floor(code / 0x1000)) .. last end
  return char(0xF0 + floor(code / 0x40000), 0x80 + floor(code / 0x1000) % 0x40) .. last
end

-- at: where the four digits are. A pair of surrogates is one letter; one alone is none.
local function unicode_at(text, at)
  local code = tonumber(text:match("^%x%x%x%x", at) or error("no unicode escape"), 16)
  if code < 0xD800 or code > 0xDFFF then return utf8_of(code), at + 4 end
  local low = tonumber(text:match("^\\u([dD][c-fC-F]%x%x)", at + 4) or error("half a letter"), 16)
  if code > 0xDBFF then error("half a letter") end
  return utf8_of(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00), at + 10
end

-- at: behind the opening quote.
local function text_at(text, at)
  local parts = {}
  while true do
    local stop = text:find('[%z\1-\31"\\]', at) or error("text without an end")
    parts[#parts + 1] = text:sub(at, stop - 1)
    local found = text:sub(stop, stop)
    if found == '"' then return table.concat(parts), stop + 1 end
    if found ~= "\\" then error("control character") end
    local letter = text:sub(stop + 1, stop + 1)
    if letter == "u" then
      parts[#parts + 1], at = unicode_at(text, stop + 2)
    else
      parts[#parts + 1], at = ESCAPED[letter] or error("no escape"), stop + 2
    end
  end
end

-- at: behind the opening bracket. Nulls are left out: nothing is granted for one.
local function list_at(text, at, depth)
  local list = {}
  at = after_space(text, at)
  if text:sub(at, at) == "]" then return list, at + 1 end
  while true do
    list[#list + 1], at = value_at(text, at, depth)
    at = after_space(text, at)
    local mark = text:sub(at, at)
    if mark == "]" then return list, at + 1 end
    if mark ~= "," then error("no list") end
    at = at + 1
  end
end

-- at: behind the opening brace.
local function object_at(text, at, depth)
  local object, named = {}, {}
  at = after_space(text, at)
  if text:sub(at, at) == "}" then return object, at + 1 end
  while true do
    at = after_space(text, at)
    if text:sub(at, at) ~= '"' then error("no name") end
    local name
    name, at = text_at(text, at + 1)
    if named[name] then error("a name twice") end
    named[name] = true
    at = after_space(text, at)
    if text:sub(at, at) ~= ":" then error("no value") end
    object[name], at = value_at(text, at + 1, depth)
    at = after_space(text, at)
    local mark = text:sub(at, at)
    if mark == "}" then return object, at + 1 end
    if mark ~= "," then error("no object") end
    at = at + 1
  end
end

local function word_at(text, at)
  local word, next_at = text:match("^([%w.+-]+)()", at)
  if word == "null" then return nil, next_at end
  if word == "true" or word == "false" then return word == "true", next_at end
  return tonumber(word or error("no value")) or error("no number"), next_at
end

function value_at(text, at, depth)
  if depth > MAX_DEPTH then error("too deep") end
  at = after_space(text, at)
  local mark = text:sub(at, at)
  if mark == '"' then return text_at(text, at + 1) end
  if mark == "{" then return object_at(text, at + 1, depth + 1) end
  if mark == "[" then return list_at(text, at + 1, depth + 1) end
  return word_at(text, at)
end

-- The claims, or nil where there are none.
local function claims_in(payload)
  local read, claims = pcall(function()
    local text = decoded(payload)
    local value, at = value_at(text, 1, 0)
    if after_space(text, at) <= #text then error("more than one value") end
    return value
  end)
  return read and type(claims) == "table" and claims or nil
end
