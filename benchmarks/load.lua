-- One kind of request for wrk. Arguments: kind, file of values, seed, Authorization (or nothing),
-- for how many milliseconds each connection pauses between requests, on average (or nothing).
-- Every request has another value: of the file for hits, made up for misses. `post-miss net.name`
-- and the like are of another type than a URL; `post-listed net.ip` takes the values of the file.

local kind, artifact_type, values, counter, seed
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
  artifact_type = kind:match(" (.+)") or "net.uri"
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

-- Values that nothing has: far apart, and never the same in two runs.
local made_up = {
  ["net.name"] = function(n) return "www.miss" .. n .. ".nothing-" .. n % 1000 .. ".example" end,
  ["net.ip"] = function(n)
    local bits = (n * 1000003) % 4294967296
    return string.format("%d.%d.%d.%d", 1 + math.floor(bits / 16777216) % 223,
      math.floor(bits / 65536) % 256, math.floor(bits / 256) % 256, bits % 256)
  end,
  ["net.cidr"] = function(n)
    local bits = (n * 1003) % 16777216
    return string.format("%d.%d.%d.0/24", 1 + math.floor(bits / 65536) % 223,
      math.floor(bits / 256) % 256, bits % 256)
  end,
  ["hash.sha256"] = function(n) return string.rep(string.format("%016x", n), 4) end,
}

local function value()
  counter = counter + 1
  if made_up[artifact_type] and not kind:find("listed") then
    return made_up[artifact_type](tonumber(seed) * 10000000 + counter)
  end
  if kind:find("miss") then
    return "http://miss-" .. seed .. "-" .. counter .. ".invalid/some/path/login.php?x=" .. counter
  end
  return values[counter % #values + 1]
end

local function json_post()
  local body = '{"type": "' .. artifact_type .. '", "value": "' .. value() .. '"}'
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
