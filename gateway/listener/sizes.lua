-- Holds a call to the sizes that its contract states, each way where there is
-- one message: it is held back until it is whole. The route says how large, and
-- what is told of a response that is larger: the tool's own end of the call is
-- replaced, as its answer is on the way by then.

local FRAME_BYTES = 5

local function is_larger(body, most)
  return body ~= nil and body:length() > most + FRAME_BYTES
end

function envoy_on_request(handle)
  local most = handle:filterContext():get("max_request_bytes")
  if most and is_larger(handle:body(), most) then handle:respond({ [":status"] = "413" }, "") end
end

function envoy_on_response(handle)
  local most = handle:filterContext():get("max_response_bytes")
  if not most then return end
  local body = handle:body()
  if not is_larger(body, most) then return end
  body:setBytes("")
  handle:headers():remove("content-length")
  local trailers, told = handle:trailers(), handle:filterContext()
  trailers:replace("grpc-status", "13")
  trailers:replace("grpc-message", told:get("message"))
  trailers:replace("grpc-status-details-bin", told:get("details"))
end
