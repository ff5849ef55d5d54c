-- The caller, derived once from the verified token by the issuers' bindings.
-- The same as governance.issuers.derive: keep the two alike. Before this text
-- come ISSUERS and SEND_ANOTHER, which are generated, claims.lua and delegation.lua.

local MAX_SUBJECT_BYTES = 256
local MAX_GRANT_BYTES = 128
-- Of a payload as it travels, in base64url.
local MAX_PAYLOAD_BYTES = 8192
-- How far the clocks of issuers may be off.
local CLOCK_SKEW_S = 5
-- google.rpc.Code.
local PERMISSION_DENIED, UNAUTHENTICATED = 7, 16

local function usable_subject(value)
  return type(value) == "string" and #value > 0 and #value <= MAX_SUBJECT_BYTES
    and not value:find("[%z\1-\31\127]") and not value:find("^ ") and not value:find(" $")
end

local function grantable(value)
  return #value <= MAX_GRANT_BYTES and value:find("^[A-Za-z0-9._:@/+%-]+$") ~= nil
end

local function claim_at(claims, path)
  local value = claims
  for _, step in ipairs(path) do
    if type(value) ~= "table" then return nil end
    value = value[step]
  end
  return value
end

-- The texts of a claim: itself, or the texts of a list. A null ends ipairs, so
-- the list is walked to its last index.
local function texts_of(value)
  if type(value) == "string" then return { value } end
  local texts = {}
  if type(value) == "table" then
    for index = 1, table.maxn(value) do
      if type(value[index]) == "string" then texts[#texts + 1] = value[index] end
    end
  end
  return texts
end

local function holds(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

local function matches_subject(pattern, subject)
  if pattern == subject then return true end
  return pattern:sub(-1) == "*" and subject:sub(1, #pattern - 1) == pattern:sub(1, -2)
end

local function granted(binding, claims)
  if binding.subject ~= "" then
    return matches_subject(binding.subject, claims.sub) and { binding.value } or {}
  end
  local texts = texts_of(claim_at(claims, binding.claim))
  if binding.value ~= "" then
    local met = binding.has == "" and #texts > 0 or holds(texts, binding.has)
    return met and { binding.value } or {}
  end
  local usable = {}
  for _, text in ipairs(texts) do
    if grantable(text) then usable[#usable + 1] = text end
  end
  return usable
end

local function derive(name, issuer, claims)
  local grants = { role = {}, domain = {}, clearance = {} }
  for _, binding in ipairs(issuer.bindings) do
    for _, value in ipairs(granted(binding, claims)) do
      local list = grants[binding.grants]
      if not holds(list, value) then list[#list + 1] = value end
    end
  end
  return {
    issuer = name, subject = claims.sub, roles = grants.role, domain = grants.domain[1] or "",
    clearances = grants.clearance, actor = "",
  }
end

-- Nobody: no rule permits anything to one without a subject.
local NOBODY = { issuer = "", subject = "", roles = {}, domain = "", clearances = {}, actor = "" }

-- Reason and words why a token is not believed, though its signature is right; nil where it is. Without claims it
-- makes nobody.
local function fault_of(issuer, claims)
  if not claims then return nil end
  -- To Envoy, 0 is no expiry, and half a second is 0.
  if type(claims.exp) ~= "number" or claims.exp < 1 then
    return { "TOKEN_NEVER_EXPIRES", "the token never expires (no `exp`)" }
  end
  -- One that says it was issued later lives from now on, like one that does not say when.
  local now = os.time()
  local since = type(claims.iat) == "number" and math.min(claims.iat, now) or now
  if claims.exp - since > issuer.max_lifetime_s + CLOCK_SKEW_S then
    local words = "the token lives longer than " .. issuer.max_lifetime_s .. " s, which is the most of its issuer's"
    return { "TOKEN_LIVES_TOO_LONG", words }
  end
end

local function caller_of(name, issuer, claims)
  if claims and claims.iss == issuer.issuer and usable_subject(claims.sub) then
    return derive(name, issuer, claims)
  end
  return NOBODY
end

local function made_of(caller)
  return {
    caller = caller, roles = table.concat(caller.roles, ","), clearances = table.concat(caller.clearances, ","),
  }
end

-- The same claims always make the same caller: what was made of those shown
-- lately, by issuer and payload. Only the filter before sets these headers.
local MAX_KNOWN = 1000
local known_count = 0
for _, issuer in pairs(ISSUERS) do issuer.known = {} end

local TOO_LARGE = {
  fault = {
    "TOKEN_TOO_LARGE", "the token is too large: its claims take more than " .. MAX_PAYLOAD_BYTES .. " bytes",
  },
}

local function known_caller(name, issuer, payload)
  if #payload > MAX_PAYLOAD_BYTES then return TOO_LARGE end
  local made = issuer.known[payload]
  if made then return made end
  if known_count >= MAX_KNOWN then
    for _, each in pairs(ISSUERS) do each.known = {} end
    known_count = 0
  end
  local claims = claims_in(payload)
  made = made_of(caller_of(name, issuer, claims))
  made.fault = fault_of(issuer, claims)
  -- What is wrong with a token may be right by a clock that was set.
  if not made.fault then issuer.known[payload], known_count = made, known_count + 1 end
  return made
end

-- And why the call is refused, if it is refused already.
local function made_for(handle, headers)
  for name, issuer in pairs(ISSUERS) do
    local payload = headers:get(issuer.payload_header)
    if payload then
      headers:remove(issuer.payload_header)
      return known_caller(name, issuer, payload)
    end
  end
  local caller, reason, message = delegated(handle, headers)
  return made_of(caller or NOBODY), reason, message
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local made, reason, message = made_for(handle, headers)
  if made.fault then
    return handle:respond(refusal(handle, "401", UNAUTHENTICATED, made.fault[1], made.fault[2] .. SEND_ANOTHER))
  end
  local caller = made.caller
  headers:replace("x-llmesh-issuer", caller.issuer)
  headers:replace("x-llmesh-domain", caller.domain)
  headers:replace("x-llmesh-roles", made.roles)
  headers:replace("x-llmesh-clearances", made.clearances)
  headers:replace("x-llmesh-actor", caller.actor)
  headers:replace("x-llmesh-call-id", headers:get("x-request-id"))
  -- To write it costs as much as two filters: only where the route's rules are CEL, or its method calls others.
  if handle:filterContext():get("typed") then
    handle:streamInfo():dynamicMetadata():set("llmesh.caller", "v", caller)
  end
  local answer, body
  if reason then answer, body = refusal(handle, "403", PERMISSION_DENIED, reason, message) end
  -- Last: where anything before fails, the call goes on without a subject, and no rule permits it.
  headers:replace("x-llmesh-subject", caller.subject)
  if answer then handle:respond(answer, body) end
end
