-- A token that is not believed costs more to refuse than a call to serve, so an
-- address may show only so many in a second. Beyond that, its connections that
-- showed one are refused without a look at their tokens; those that did not,
-- such as another caller's behind the same address, go on. Each of Envoy's
-- workers counts by itself. LIMIT is generated before this text, and where the
-- filter of the blocks writes: BLOCKS and BLOCKS_RESULT.

local second, refused, guilty, over = 0, {}, {}, false

-- An IPv6 caller has a network of its own rather than an address: its first 64 bits.
local function network_of(connection)
  local address = connection:match("^%[(.*)%]:%d+$")
  if not address then return connection:match("^(.*):%d+$") or connection end
  local before, after = address:match("^(.-)::(.*)$")
  local groups = {}
  for group in (before or address):gmatch("[^:]+") do groups[#groups + 1] = group end
  if after then
    local _, count = after:gsub("[^:]+", "")
    for _ = #groups + 1, 8 - count do groups[#groups + 1] = "0" end
    for group in after:gmatch("[^:]+") do groups[#groups + 1] = group end
  end
  return table.concat(groups, ":", 1, 4)
end

function envoy_on_request(handle)
  if not over then return end
  if os.time() ~= second then
    over = false
    return
  end
  local connection = handle:streamInfo():downstreamDirectRemoteAddress()
  if guilty[connection] and refused[network_of(connection)] > LIMIT then
    handle:respond({ [":status"] = "429" }, "")
  end
end

function envoy_on_response(handle)
  if handle:headers():get("grpc-status") ~= "16" then return end
  local stream = handle:streamInfo()
  -- A tool's own answer: the token was believed, so that it was looked up what is blocked.
  local looked_up = stream:dynamicMetadata():get(BLOCKS)
  if looked_up and looked_up[BLOCKS_RESULT] then return end
  local now = os.time()
  if now ~= second then
    second, refused, guilty, over = now, {}, {}, false
  end
  local connection = stream:downstreamDirectRemoteAddress()
  local network = network_of(connection)
  refused[network] = (refused[network] or 0) + 1
  guilty[connection] = true
  over = over or refused[network] > LIMIT
end
