-- One kind of request for wrk. Arguments: kind, file of values, seed, Authorization (or nothing),
-- for how many milliseconds each connection pauses between requests, on average (or nothing).
-- Every request has another value: of the file for hits, made up for misses.

local kind, values, counter, seed
local head = " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: wrk\r\n"

local function lines_of(path)
  local found = {}
  for line in io.lines(path) do
    found[#found + 1] = line
  end
  return found
end

function init(args)
  kind = args[1]
  values = lines_of(args[2])
  seed = args[3] or "0"
  counter = tonumber(seed) * 7919
  if args[4] and args[4] ~= "" then
    head = head .. "Authorization: " .. args[4] .. "\r\n"
  end
  local pause = tonumber(args[5] or "0")
  if pause > 0 then
    delay = function() return math.floor(math.random() * 2 * pause + 0.5) end
  end
end

local function value()
  counter = counter + 1
  if kind:find("miss") then
    return "http://miss-" .. seed .. "-" .. counter .. ".invalid/some/path/login.php?x=" .. counter
  end
  return values[counter % #values + 1]
end

local function json_post()
  local body = '{"type": "net.uri", "value": "' .. value() .. '"}'
  return "POST /" .. head .. "Content-Type: application/json\r\nContent-Length: " .. #body
    .. "\r\n\r\n" .. body
end

local boundary = "hNkAJef6-C3sLds5cHApeUTcq-9GtzFHS1"

-- As the platform's Java client sends it: multipart, chunked, no file.
local function multipart_post()
  local body = "--" .. boundary .. "\r\nContent-Disposition: form-data; name=\"artifact\"\r\n"
    .. "Content-Type: application/json; charset=UTF-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    .. '{"type":"net.uri","value":"' .. value() .. '"}\r\n--' .. boundary .. "--\r\n"
  return "POST /" .. head .. "Content-Type: multipart/form-data; boundary=" .. boundary
    .. "\r\nTransfer-Encoding: chunked\r\n\r\n" .. string.format("%x\r\n", #body) .. body
    .. "\r\n0\r\n\r\n"
end

function request()
  if kind == "options" then
    return "OPTIONS /" .. head .. "\r\n"
  elseif kind == "get" then
    return "GET /" .. value() .. head .. "\r\n"
  elseif kind:find("multipart") then
    return multipart_post()
  end
  return json_post()
end


function done(summary, latency)
  io.write(string.format(
    "RESULT requests=%d micros=%d p50=%.2f p99=%.2f p999=%.2f max=%.2f errors=%d not2xx=%d\n",
    summary.requests, summary.duration, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, latency.max / 1000,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.errors.status))
end
