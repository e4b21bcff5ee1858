-- What wrk asks: wrk … -s requests.lua ADDRESS -- CASE ARGUMENT…
-- The cases are below.

local json = { ["Content-Type"] = "application/json" }
local case, arguments
local thread_count = 0

function setup(thread)
    thread_count = thread_count + 1
    thread:set("thread_number", thread_count)
end

local function post(path, body)
    return wrk.format("POST", path, json, body)
end

local cases = {}

-- post PATH FILE: the same body each time.
function cases.post(path, file)
    local handle = assert(io.open(file))
    local request = post(path, handle:read("*a"))
    return function() return request end
end

-- each PATH FILE: a random line of the file.
function cases.each(path, file)
    local requests = {}
    for line in io.lines(file) do requests[#requests + 1] = post(path, line) end
    return function() return requests[math.random(#requests)] end
end

-- What clients give: another number for each message.
local function send(sender, channel, payload)
    local run, sent = string.format("%x-%x-", os.time(), math.random(2 ^ 30)), 0
    return function()
        sent = sent + 1
        return post("/message/send", '{"header":{"red_dot":1},"from_uid":"s' .. sender() .. '","channel_id":"' .. channel()
            .. '","channel_type":2,"client_msg_no":"' .. run .. sent .. '","payload":"' .. payload .. '"}')
    end
end

-- send CHANNELS PAYLOAD: a message to one of so many groups, g0, g1, …
function cases.send(channels, payload)
    channels = tonumber(channels)
    return send(function() return math.random(20) end, function() return "g" .. math.random(channels) - 1 end, payload)
end

-- group CHANNEL PAYLOAD: a message to one group, by its name.
function cases.group(channel, payload)
    return send(function() return 1 end, function() return channel end, payload)
end

-- unread UID CHANNELS: another number of unread messages in one of so many groups; "s": of one of s1 … s19.
function cases.unread(uid, channels)
    channels = tonumber(channels)
    return function()
        local who = uid == "s" and "s" .. math.random(19) or uid
        return post("/conversations/setUnread", '{"uid":"' .. who .. '","channel_id":"g' .. math.random(channels) - 1
            .. '","channel_type":2,"unread":' .. math.random(1000000) .. '}')
    end
end

-- webhook CHANNELS SIZE PAYLOAD RUN: bodies of SIZE messages, spread over groups w<RUN>-0, w<RUN>-1, …
function cases.webhook(channels, size, payload, run)
    channels, size, run = tonumber(channels), tonumber(size), tonumber(run)
    local ids, next_seq, at = 0, {}, 0
    return function()
        local messages = {}
        for index = 1, size do
            ids = ids + 1
            at = (at + 1) % channels
            next_seq[at] = (next_seq[at] or 0) + 1
            local id = string.format("%d%03d%012d", 1 + run % 9, thread_number, ids + run * 100000000)
            messages[index] = '{"header":{"no_persist":0,"red_dot":1,"sync_once":0},"setting":0,"message_id":' .. id
                .. ',"message_idstr":"' .. id .. '","client_msg_no":"n' .. id .. '","message_seq":' .. next_seq[at]
                .. ',"from_uid":"s' .. index % 20 .. '","channel_id":"w' .. run .. "-" .. thread_number .. "-" .. at
                .. '","channel_type":2,"expire":0,"timestamp":1795393148,"payload":"' .. payload .. '"}'
        end
        return post("/webhook?event=msg.notify", "[" .. table.concat(messages, ",") .. "]")
    end
end

function init(given)
    arguments = {}
    for index = 2, #given do arguments[index - 1] = given[index] end
    math.randomseed(thread_number * 7919 + os.time())
    request = cases[given[1]](unpack(arguments))
end

function done(summary, latency)
    io.write(string.format('\n{"requests":%d,"seconds":%f,"bytes":%d,"p50":%f,"p99":%f,"errors":%d}\n', summary.requests,
        summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
