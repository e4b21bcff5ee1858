// Pages of other origins in a real browser against a server without authentication: RECENTS=http://127.0.0.1:PORT node rebinding.mjs, with
// playwright-core beside it and Debian's chromium. The server holds tests/fixtures/wukongim/day-v2.jsonl.gz.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const base = process.env.RECENTS ?? "http://127.0.0.1:5001";
const { port } = new URL(base);

const elsewhere = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>elsewhere</title>"));
await new Promise((resolve) => elsewhere.listen(0, resolve));
const otherPort = elsewhere.address().port;

const post = (path, body, type = "text/plain") => ({ path, method: "POST", headers: { "content-type": type }, body: JSON.stringify(body) });
const message = { header: { red_dot: 1 }, from_uid: "mallory", channel_id: "u02", channel_type: 1, payload: "e30=" };
const notified = { ...message, message_id: 9007199254740991, message_seq: 1, channel_id: "u04", timestamp: 1780000000, to_uids: ["u04"] };
const query = "{ conversationList(uid: \"u02\") { totalCount } }";
const deletion = { query: 'mutation { deleteConversation(input: {uid: "u02", channel: {channelId: "u04", channelType: 1}}) { __typename } }' };
const requests = [
  post("/conversation/sync", { uid: "u02", version: 0, msg_count: 1 }),
  post("/conversation/sync", { uid: "u02", version: 0, msg_count: 1 }, "application/json"),
  post("/message/send", message),
  post("/message/send", message, "application/json"),
  post("/conversations/delete", { uid: "u02", channel_id: "u04", channel_type: 1 }),
  post("/webhook?event=msg.notify", [notified]),
  post("/graphql", { query }),
  post("/graphql", { query }, "application/json"),
  post("/graphql", deletion, "application/json"),
  { path: `/graphql?query=${encodeURIComponent(query)}`, method: "GET", headers: { accept: "application/json" } },
  { path: "/metrics", method: "GET" },
  { path: "/health", method: "GET" },
];

/** Runs in a page; returns the status of a request if the page may read the response, otherwise "unreadable". */
const ask = async ([origin, { path, ...rest }, mode]) => {
  try {
    const answer = await fetch(origin + path, { ...rest, mode, signal: AbortSignal.timeout(10_000) });
    return answer.type === "opaque" ? "unreadable" : answer.status;
  } catch (error) {
    return error.name === "TypeError" ? "unreadable" : String(error);
  }
};

/** Runs in a page; returns the first message of a WebSocket, or "refused". */
const connect = (url) => new Promise((resolve) => {
  const socket = new WebSocket(url, "graphql-transport-ws");
  socket.onopen = () => socket.send('{"type":"connection_init"}');
  socket.onmessage = ({ data }) => { resolve(JSON.parse(data).type); socket.close(); };
  socket.onerror = () => resolve("refused");
  setTimeout(() => resolve("nothing"), 10_000);
});

// The stored state, as a user of this machine sees it.
const state = async () => Promise.all(["u02", "u04", "mallory"].map(async (uid) => {
  const answer = await fetch(`${base}/conversation/sync`, { method: "POST", body: JSON.stringify({ uid, version: 0, msg_count: 3 }) });
  assert.equal(answer.status, 200);
  return answer.json();
}));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP evil.example 127.0.0.1",
    // The browser's own protection is not tested here, and `open` does not see frames in separate processes.
    "--disable-features=IsolateSandboxedIframes,LocalNetworkAccessChecks,PrivateNetworkAccessRespectPreflightResults,BlockInsecurePrivateNetworkRequests"],
});

/** Opens a page, and records the statuses of this server's responses, whether or not the page may see them. */
const open = async (url) => {
  const page = await browser.newPage();
  const statuses = [];
  const session = await page.context().newCDPSession(page);
  const ours = new Set();
  await session.send("Network.enable");
  session.on("Network.requestWillBeSent", ({ requestId, request }) => { if (new URL(request.url).port === port) ours.add(requestId); });
  session.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) => { if (ours.has(requestId)) statuses.push(statusCode); });
  session.on("Network.webSocketHandshakeResponseReceived", ({ response }) => statuses.push(response.status));
  const answer = await page.goto(url);
  return { page, statuses, answer };
};

try {
  const before = await state();

  // The server's own pages.
  for (const host of ["127.0.0.1", "localhost"]) {
    const own = `http://${host}:${port}`;
    const { page, answer } = await open(`${own}/graphiql`);
    assert.equal(answer.status(), 200, own);
    for (const request of [requests[0], requests[1], requests[7]]) {
      assert.equal(await page.evaluate(ask, [own, request, "cors"]), 200, `${own} ${request.path}`);
    }
    assert.equal(await page.evaluate(connect, `ws://${host}:${port}/graphql`), "connection_ack", own);
    await page.close();
  }

  // Pages of other origins, on this machine or not, and a page without an origin.
  for (const origin of [`http://evil.example:${otherPort}`, `http://localhost:${otherPort}`, "null"]) {
    const { page, statuses } = await open(origin === "null" ? `http://evil.example:${otherPort}` : origin);
    let frame = page.mainFrame();
    if (origin === "null") {
      await page.setContent('<iframe sandbox="allow-scripts" srcdoc="<!doctype html>"></iframe>');
      frame = await (await page.waitForSelector("iframe")).contentFrame();
      assert.equal(await frame.evaluate(() => window.origin), "null");
    }
    for (const host of ["127.0.0.1", "localhost", "evil.example"]) {
      const target = `http://${host}:${port}`;
      for (const request of requests) {
        assert.equal(await frame.evaluate(ask, [target, request, "cors"]), "unreadable", `${origin}: ${target}${request.path}`);
        // A page may send these without a preflight request. For a GET the browser then sends no origin, and "same-site" for the same
        // host; the page cannot read the response, and a GET writes nothing.
        const isSimple = request.method === "GET" ? host !== new URL(page.url()).hostname : request.headers["content-type"] === "text/plain";
        if (!isSimple) continue;
        assert.equal(await frame.evaluate(ask, [target, request, "no-cors"]), "unreadable", `${origin}: ${target}${request.path}`);
      }
      assert.equal(await frame.evaluate(connect, `ws://${host}:${port}/graphql`), "refused", `${origin}: ${target}`);
    }
    assert.ok(statuses.length > requests.length, `${origin}: the server was reached`);
    assert.deepEqual(statuses.filter((status) => status !== 403), [], origin);
    await page.close();
  }

  // A form is sent without a preflight request.
  {
    const { page } = await open(`http://evil.example:${otherPort}`);
    const sent = page.waitForResponse((answer) => answer.url().endsWith("/message/send"));
    await page.evaluate(([action, { x, ...rest }]) => {
      const form = Object.assign(document.createElement("form"), { method: "POST", enctype: "text/plain", action });
      // The body is NAME=VALUE.
      form.append(Object.assign(document.createElement("input"), { name: `${JSON.stringify(rest).slice(0, -1)},"x":"`, value: '"}' }));
      document.body.append(form);
      form.submit();
    }, [`${base}/message/send`, message]);
    assert.equal((await sent).status(), 403);
    await page.close();
  }

  // DNS rebinding: a page whose name now leads here, so that the browser takes the server for the page's own.
  {
    const rebound = `http://evil.example:${port}`;
    const { page, answer, statuses } = await open(`${rebound}/`);
    assert.equal(answer.status(), 403);
    assert.equal(await page.evaluate(() => window.origin), rebound);
    assert.match(await page.innerText("body"), /auth\.manager_token/);
    for (const request of requests) assert.equal(await page.evaluate(ask, [rebound, request, "same-origin"]), 403, request.path);
    for (const host of ["evil.example", "127.0.0.1", "localhost"]) {
      assert.equal(await page.evaluate(connect, `ws://${host}:${port}/graphql`), "refused", host);
    }
    assert.deepEqual(statuses.filter((status) => status !== 403), []);
    await page.close();
  }

  assert.deepEqual(await state(), before, "nothing was written");
} finally {
  await browser.close();
  elsewhere.close();
}
