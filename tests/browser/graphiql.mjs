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
  await page.click('a[href="/graphiql"]');
  await page.waitForSelector('body[data-ready="true"]');
  assert.match(await page.innerText("#docs"), /conversations: ConversationSync!/);

  const examples = await page.$$eval("#examples option", (options) => options.map((option) => option.value).filter(Boolean));
  assert.ok(examples.length >= 12);
  for (const example of examples) {
    await page.selectOption("#examples", example);
    await run();
    assert.match(await page.innerText("#status"), /^200/, example);
    assert.ok(await page.isHidden("#errors"), example);
  }
  await page.selectOption("#examples", "list");
  await run();
  const { data } = JSON.parse(await page.innerText("#result"));
  assert.ok(data.conversations.conversations.length > 10);

  await page.fill("#operation", "{ nope }");
  await page.fill("#variables", "");
  await run();
  assert.match(await page.innerText("#status"), /^400/);
  assert.match(await page.innerText("#errors"), /GRAPHQL_VALIDATION_FAILED.*nope/);

  await page.fill("#variables", "{ x");
  await page.click("#run"); // nothing is sent
  assert.equal(await page.innerText("#status"), "Not sent");
  assert.match(await page.innerText("#errors"), /Variables are not JSON/);

  // What was written survives a reload, what may be secret does not.
  await page.fill("#operation", "{ __typename }");
  await page.fill("#variables", "");
  await page.fill("#headers", '{"token": "hush"}');
  await page.reload();
  await page.waitForSelector('body[data-ready="true"]');
  assert.equal(await page.inputValue("#operation"), "{ __typename }");
  assert.doesNotMatch(await page.inputValue("#headers"), /hush/);

  // Completion: a field of the root, of what it returns, an argument, a field of its input; by keyboard.
  const typed = async (text, ...keys) => {
    await page.fill("#operation", "");
    await page.click("#operation");
    await page.keyboard.type(text);
    for (const key of keys) await page.keyboard.press(key);
    return page.inputValue("#operation");
  };
  assert.equal(await typed("{ unreadS", "Enter"), "{ unreadSummary");
  assert.equal(await typed("{ unreadSummary { mut", "ArrowDown", "Tab"), "{ unreadSummary { mutedConversations");
  assert.equal(await typed("{ conversationList(fir", "Tab"), "{ conversationList(first: ");
  assert.equal(await typed("{ conversationList(filter: { onlyU", "Enter"), "{ conversationList(filter: { onlyUnread: ");
  assert.equal(await typed("{ conversationList(filter: { muted: tr", "Enter"), "{ conversationList(filter: { muted: true");
  assert.equal(await typed("{ list: conversationList { nodes { lastMessage { fromU", "Enter"), "{ list: conversationList { nodes { lastMessage { fromUid");
  assert.equal(await typed("{ node(id: 1) { ... on Conver", "Enter"), "{ node(id: 1) { ... on Conversation");
  assert.equal(await typed("{ node(id: 1) { ... on Message { contentX", "Backspace", "Backspace", "Enter"), "{ node(id: 1) { ... on Message { content");
  assert.equal(await typed("mutation { mark", "Enter"), "mutation { markAllRead");
  assert.equal(await typed("fragment f on UnreadSummary { to", "Enter"), "fragment f on UnreadSummary { total");
  assert.equal(await typed("{ unreadS", "Escape"), "{ unreadS");
  assert.ok(await page.isHidden("#completions"));
  assert.equal(await typed("# unreadS"), "# unreadS");
  assert.ok(await page.isHidden("#completions"));
  await typed("{ ", "Control+Space");
  assert.match(await page.innerText("#completions"), /conversations: ConversationSync!/);
  await page.keyboard.press("Escape");

  // Saved operations outlive a reload, until they are forgotten.
  await page.fill("#operation", "{ mine: __typename }");
  await page.fill("#save-name", "my own");
  await page.click("#save");
  await page.selectOption("#examples", "list");
  await page.reload();
  await page.waitForSelector('body[data-ready="true"]');
  await page.selectOption("#examples", "saved:my own");
  assert.equal(await page.inputValue("#operation"), "{ mine: __typename }");
  await page.click("#forget");
  assert.equal(await page.$('option[value="saved:my own"]'), null);

  // A link brings the operation to another browser; a damaged one changes nothing.
  await page.fill("#operation", "{ linked: __typename } # ü");
  await page.fill("#variables", '{"uid": "u02"}');
  await page.fill("#headers", '{"token": "hush"}');
  await page.click("#copy-link");
  await page.waitForFunction(() => /link/.test(document.querySelector("#status").textContent));
  const link = page.url();
  assert.doesNotMatch(Buffer.from(new URL(link).hash.slice(1), "base64url").toString(), /hush/);
  const other = await browser.newContext();
  const opened = await other.newPage();
  await opened.goto(link);
  await opened.waitForSelector('body[data-ready="true"]');
  assert.equal(await opened.inputValue("#operation"), "{ linked: __typename } # ü");
  assert.equal(await opened.inputValue("#variables"), '{"uid": "u02"}');
  await opened.goto(`${base}/graphiql#damaged`);
  await opened.waitForFunction(() => document.querySelector("#status").textContent === "Damaged link");
  assert.equal(await opened.inputValue("#operation"), "{ linked: __typename } # ü");
  await other.close();

  assert.deepEqual(complaints, []);
  assert.deepEqual(elsewhere, [], "the page loads nothing from elsewhere");
} finally {
  await browser.close();
}
