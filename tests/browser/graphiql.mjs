// The query page in a real browser: RECENTS=http://… node graphiql.mjs, with playwright-core beside it and Debian's chromium.
// The server holds tests/fixtures/wukongim/day-v2.jsonl.gz.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const base = process.env.RECENTS ?? "http://127.0.0.1:5001";
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
  const complaints = [];
  const elsewhere = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // Chromium itself writes this for every answer of 400 and above; the page cannot prevent it.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(base)) elsewhere.push(request.url());
  });
  const run = async () => {
    const answered = page.waitForResponse((response) => response.url().endsWith("/graphql"));
    await page.click("#run");
    await answered;
    await page.waitForFunction(() => / ms$/.test(document.querySelector("#status").textContent));
  };

  await page.goto(`${base}/`);
  assert.match(await page.innerText("#command"), new RegExp(`^curl -s ${base}/graphql `));
  await page.click('a[href="/graphiql"]');
  await page.waitForSelector('body[data-ready="true"]');
  assert.match(await page.innerText("#docs"), /conversations: ConversationSync(?!!)/);

  const examples = await page.$$eval("#examples option", (options) => options.map((option) => option.value).filter(Boolean));
  assert.ok(examples.length >= 13);
  for (const example of examples.filter((example) => example !== "live")) {
    await page.selectOption("#examples", example);
    await run();
    assert.match(await page.innerText("#status"), /^200/, example);
    assert.ok(await page.isHidden("#errors"), example);
  }
  await page.selectOption("#examples", "list");
  await run();
  const { data } = JSON.parse(await page.innerText("#result"));
  assert.ok(data.conversations.conversations.length > 10);

  // A subscription runs until it is stopped; the newest event is on top.
  const connections = async () => /recents_live_connections\{protocol="sse"\} (\d+)/.exec(await (await fetch(`${base}/metrics`)).text())?.[1];
  const says = (text) => page.waitForFunction((text) => document.querySelector("#status").textContent === text, text);
  await page.selectOption("#examples", "live");
  await page.click("#run");
  await says("1 event");
  assert.equal(await page.innerText("#run"), "Stop");
  const payload = Buffer.from('{"type":1,"content":"seen live"}').toString("base64");
  const message = { header: { red_dot: 1 }, from_uid: "u04", channel_id: "u02", channel_type: 1, payload };
  await fetch(`${base}/message/send`, { method: "POST", body: JSON.stringify(message) });
  await says("2 events");
  assert.match(await page.innerText("#result"), /^# 2, [^]*seen live[^]*# 1, /);
  assert.equal(await connections(), "1");
  await page.click("#run");
  await says("2 events, stopped");
  assert.equal(await page.innerText("#run"), "Run");
  while ((await connections()) !== "0") await new Promise((resolve) => setTimeout(resolve, 50));
  await page.fill("#operation", "subscription { conversationChanges { version } }");
  await page.fill("#variables", "");
  await page.click("#run");
  await says("1 event, complete");
  assert.match(await page.innerText("#errors"), /BAD_USER_INPUT.*uid/);

  await page.fill("#operation", "{ nope }");
  await page.fill("#variables", "");
  await run();
  assert.match(await page.innerText("#status"), /^400/);
  assert.match(await page.innerText("#errors"), /GRAPHQL_VALIDATION_FAILED.*nope/);

  await page.fill("#variables", "{ x");
  await page.click("#run"); // nothing is sent
  assert.equal(await page.innerText("#status"), "Not sent");
  assert.match(await page.innerText("#errors"), /Variables are not JSON/);

  // The editors' text survives a reload, possible secrets do not.
  await page.fill("#operation", "{ __typename }");
  await page.fill("#variables", "");
  await page.fill("#headers", '{"token": "hush"}');
  await page.reload();
  await page.waitForSelector('body[data-ready="true"]');
  assert.equal(await page.inputValue("#operation"), "{ __typename }");
  assert.doesNotMatch(await page.inputValue("#headers"), /hush/);

  // Completion by keyboard: the typed text, the key that accepts it, and the resulting text.
  const offered = () => page.$$eval("#completions [role=option]:not(#completions[hidden] *)", (items) => items.map((item) => item.innerText));
  const type = async (text, ...keys) => {
    await page.fill("#operation", "");
    await page.focus("#operation");
    await page.keyboard.type(text);
    for (const key of keys) await page.keyboard.press(key);
    return page.inputValue("#operation");
  };
  for (const [text, keys, expected] of [
    ["{ unreadS", ["Enter"], "{ unreadSummary"],
    ["{ unreadSummary { mut", ["ArrowDown", "Tab"], "{ unreadSummary { mutedConversations"],
    ["{ list: conversationList { nodes { lastMessage { fromU", ["Enter"], "{ list: conversationList { nodes { lastMessage { fromUid"],
    ["{ conversationList(first: 2 fil", ["Enter"], "{ conversationList(first: 2 filter: "],
    ["{ conversationList(filter: {onlyU", ["Enter"], "{ conversationList(filter: {onlyUnread: "],
    ["{ conversationList(filter: {muted: t", ["Enter"], "{ conversationList(filter: {muted: true"],
    ["query Q($mine: ID) { unreadSummary(uid: $m", ["Enter"], "query Q($mine: ID) { unreadSummary(uid: $mine"],
    ["query Q($c: ChannelI", ["Enter"], "query Q($c: ChannelInput"],
    ['{ conversation(channel: {channelId: "}"}) { muted @include(if: true) recents(la', ["Enter"],
      '{ conversation(channel: {channelId: "}"}) { muted @include(if: true) recents(last: '],
    ["{ node(id: 1) { ... on Conv", ["Enter"], "{ node(id: 1) { ... on Conversation"],
    ["{ node(id: 1) { ... on Message { clientM", ["Enter"], "{ node(id: 1) { ... on Message { clientMsgNo"],
    ["fragment F on UnreadSummary { tot", ["Enter"], "fragment F on UnreadSummary { total"],
    ["mutation { markA", ["Enter"], "mutation { markAllRead"],
    ["{ unreadS", ["Escape", "Enter"], "{ unreadS\n"],
    ["{ unreadS", ["Escape", "Tab"], "{ unreadS  "],
    ["# unreadS", ["Enter"], "# unreadS\n"],
    ['{ node(id: "unreadS', ["Enter"], '{ node(id: "unreadS\n'],
  ]) {
    assert.equal(await type(text, ...keys), expected);
    assert.ok(await page.isHidden("#completions"), text);
  }
  await type("{ unreadSummary { ", "Control+Space");
  assert.match((await offered())[1], /^total\s+Int!\s+The number of unread messages in conversations/);
  const active = await page.getAttribute("#operation", "aria-activedescendant");
  assert.equal(await page.getAttribute(`#${active}`, "aria-selected"), "true");
  await page.click("#completions li:nth-child(3)");
  assert.equal(await page.inputValue("#operation"), "{ unreadSummary { conversations");
  // In the middle of a name the whole name is replaced.
  await type("{ unreadXummary }", ...Array(9).fill("ArrowLeft"), "Control+Space", "Enter");
  assert.equal(await page.inputValue("#operation"), "{ unreadSummary }");

  // An interface shows the types that implement it, and they show the interface.
  await page.fill("#docs-filter", "Node");
  await page.click('#docs .link:text-is("Node")');
  assert.match(await page.innerText("#docs"), /interface[^]*Possible types[^]*Conversation[^]*Message[^]*Channel[^]*UnreadSummary/);
  await page.click('#docs .link:text-is("Channel")');
  assert.match(await page.innerText("#docs"), /Implements\s+Node/);

  // Saved operations survive a reload until they are deleted, and do not contain the headers.
  const mine = { operation: "query Mine { __typename } # ü 你好", variables: '{"uid": "u02"}' };
  const fillMine = async () => {
    await page.fill("#operation", mine.operation);
    await page.fill("#variables", mine.variables);
    await page.fill("#headers", '{"token": "hush"}');
  };
  const texts = async (of) => ({ operation: await of.inputValue("#operation"), variables: await of.inputValue("#variables") });
  const reload = async () => {
    await page.reload();
    await page.waitForSelector('body[data-ready="true"]');
  };
  await fillMine();
  assert.ok(await page.isDisabled("#forget"));
  await page.click("#save");
  assert.equal(await page.inputValue("#save-name"), "Mine");
  await page.fill("#save-name", "my own");
  await page.press("#save-name", "Enter");
  assert.equal(await page.innerText("#status"), "Saved my own");
  await page.selectOption("#examples", "list");
  await reload();
  await page.selectOption("#examples", { label: "my own" });
  assert.deepEqual(await texts(page), mine);
  assert.doesNotMatch(await page.evaluate(() => JSON.stringify(localStorage)), /hush/);
  await page.click("#forget");
  assert.equal(await page.innerText("#status"), "Forgot my own");
  assert.deepEqual(await texts(page), mine);
  await reload();
  assert.equal(await page.$$eval("#saved option", (options) => options.length), 0);
  assert.deepEqual(await texts(page), mine);
  await page.evaluate(() => localStorage.setItem("recents.saved", "[null, 1"));
  await reload();
  assert.equal(await page.$$eval("#saved option", (options) => options.length), 0);

  // A link fills the editors of another browser and runs nothing; a damaged one shows an error and changes nothing.
  await fillMine();
  await page.click("#copy-link");
  await page.waitForSelector("#status a");
  const link = await page.getAttribute("#status a", "href");
  assert.ok(link.startsWith(`${base}/graphiql#`));
  assert.deepEqual(JSON.parse(Buffer.from(new URL(link).hash.slice(1), "base64url").toString()), mine);
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
  const other = await context.newPage();
  other.on("pageerror", (error) => complaints.push(String(error)));
  await other.goto(link);
  await other.waitForSelector('body[data-ready="true"]');
  assert.deepEqual(await texts(other), mine);
  assert.match(await other.innerText("#status"), /not run yet/);
  assert.equal(new URL(other.url()).hash, "");
  const whole = new URL(link).hash.slice(1);
  const notTexts = Buffer.from('{"operation": 1}').toString("base64url");
  for (const damaged of ["%", whole.slice(0, -9), notTexts]) {
    await other.evaluate((hash) => { location.hash = hash; }, damaged);
    await other.waitForFunction(() => document.querySelector("#status").textContent === "Damaged link");
    assert.match(await other.innerText("#errors"), /link to this operation is damaged/);
    assert.deepEqual(await texts(other), mine);
    await other.reload();
    await other.waitForSelector('body[data-ready="true"]');
    assert.match(await other.innerText("#errors"), /link to this operation is damaged/);
    assert.deepEqual(await texts(other), mine);
    await other.evaluate(() => history.replaceState(null, "", location.pathname));
    await other.reload();
  }
  await context.close();

  assert.deepEqual(complaints, []);
  assert.deepEqual(elsewhere, [], "the page loads nothing from elsewhere");
} finally {
  await browser.close();
}
