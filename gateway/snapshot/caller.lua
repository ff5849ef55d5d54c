-- The caller, derived once from the verified token by the issuers' bindings.
-- The same as governance.issuers.derive: keep the two alike. ISSUERS is
-- generated before this text.

local MAX_SUBJECT_BYTES = 256
local MAX_GRANT_BYTES = 128

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

local function caller_of(verified)
  for name, issuer in pairs(ISSUERS) do
    local claims = verified and verified[name]
    if type(claims) == "table" and claims.iss == issuer.issuer and usable_subject(claims.sub) then
      return derive(name, issuer, claims)
    end
  end
  return { issuer = "", subject = "", roles = {}, domain = "", clearances = {}, actor = "" }
end

-- A token always makes the same caller: what was made of those shown lately, by
-- the header they came in, which the filter before has verified for this call too.
local MAX_KNOWN = 1000
local known, known_count = {}, 0

local function remember(shown, caller)
  if known_count >= MAX_KNOWN then known, known_count = {}, 0 end
  known[shown], known_count = {
    caller = caller, roles = table.concat(caller.roles, ","), clearances = table.concat(caller.clearances, ","),
  }, known_count + 1
  return known[shown]
end

function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local headers = handle:headers()
  local shown = headers:get("authorization") or ""
  local made = known[shown] or remember(shown, caller_of(metadata:get("envoy.filters.http.jwt_authn")))
  local caller = made.caller
  headers:replace("x-llmesh-issuer", caller.issuer)
  headers:replace("x-llmesh-subject", caller.subject)
  headers:replace("x-llmesh-domain", caller.domain)
  headers:replace("x-llmesh-roles", made.roles)
  headers:replace("x-llmesh-clearances", made.clearances)
  headers:replace("x-llmesh-actor", caller.actor)
  headers:remove("authorization")
  headers:remove("llmesh-delegation")
  headers:remove("x-llmesh-asked-timeout")
  -- Last: where anything before fails, the call goes on without a caller, and no rule permits it.
  metadata:set("llmesh.caller", "v", caller)
end
