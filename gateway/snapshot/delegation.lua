-- A call that a tool makes for its caller: who is behind it, by the token that
-- the gateway minted and the filter before has verified. The same as
-- governance.delegation: keep the two alike. Before this text come MAX_HOPS,
-- MAX_TEXT_BYTES, OURSELVES and FAN_OUT, which are generated, and claims.lua.

local PAYLOAD = "x-llmesh-delegated"

local function chain(path, method)
  local names = {}
  for index, each in ipairs(path) do names[index] = each:sub(2) end
  names[#names + 1] = method:sub(2)
  return table.concat(names, " -> ")
end

-- Reason and words; nil if the call may go on to the rules.
local function why_refused(claims, method)
  local path = claims.path
  for _, each in ipairs(path) do
    if each == method then
      return "DELEGATION_LOOP", chain(path, method) .. ": a loop; no method is called again for itself"
    end
  end
  if #path > MAX_HOPS then
    return "TOO_MANY_HOPS",
      chain(path, method) .. ": between a caller and a call stand at most " .. MAX_HOPS .. " tools"
  end
  for _, each in ipairs(claims.methods) do
    if each == method then return nil end
  end
  local who, whose = (path[#path] or FAN_OUT):sub(2), "for its caller"
  if #path == 0 and claims.issuer == OURSELVES then who, whose = claims.sub, "in its own right" end
  local why = "its contract must list that under `uses`, and the rules must permit it to the tool itself"
  for _, each in ipairs(claims.absent or {}) do
    if each == method then why = "it is not on the mesh" end
  end
  return "NOT_DELEGATED", who .. " may not call " .. method:sub(2) .. " " .. whose .. ": " .. why
end

-- A field of a protobuf message that is text or a message.
local function field(number, value)
  local length, rest = "", #value
  while rest > 127 do
    length, rest = length .. string.char(rest % 128 + 128), math.floor(rest / 128)
  end
  return string.char(number * 8 + 2) .. length .. string.char(rest) .. value
end

-- An answer's headers and body, with a google.rpc.Status that holds an ErrorInfo. code: gRPC's, and http: that of HTTP.
local function refusal(handle, http, code, reason, message)
  message = message:gsub("[^ -~]", "?"):sub(1, MAX_TEXT_BYTES)
  local info = field(1, reason) .. field(2, "llmesh")
  local detail = field(1, "type.googleapis.com/google.rpc.ErrorInfo") .. field(2, info)
  local status = string.char(8, code) .. field(2, message) .. field(3, detail)
  return {
    [":status"] = http, ["grpc-status"] = tostring(code),
    ["grpc-status-details-bin"] = handle:base64Escape(status),
  }, message
end

-- The caller, and why the call is refused, if it is; nil if no tool makes the call.
local function delegated(handle, headers)
  local payload = headers:get(PAYLOAD)
  if not payload then return nil end
  local claims = claims_in(payload)
  -- A fan-out calls others with no more than this.
  if headers:get(":path") ~= FAN_OUT then headers:remove(PAYLOAD) end
  -- Whoever else is said to call: the token alone says it.
  headers:remove("authorization")
  headers:replace("x-llmesh-parent", claims.parent)
  local path = claims.path
  local known = handle:streamInfo():dynamicMetadata()
  known:set("llmesh.caller", "path", path)
  -- What this call hands on ends no later.
  known:set("llmesh.caller", "ends_s", claims.exp)
  -- For what is blocked, which is looked up by headers.
  if claims.issuer == OURSELVES then headers:replace("x-llmesh-acting-0", "/" .. claims.sub .. "/") end
  for hop, method in ipairs(path) do headers:replace("x-llmesh-acting-" .. hop, method) end
  return {
    issuer = claims.issuer, subject = claims.sub, roles = claims.roles, domain = claims.domain,
    clearances = claims.clearances, actor = (path[#path] or ""):match("^/?([^/]*)"),
  }, why_refused(claims, headers:get(":path"))
end
