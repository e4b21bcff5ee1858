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
  assert.ok(examples.length >= 8);
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

  assert.deepEqual(complaints, []);
  assert.deepEqual(elsewhere, [], "the page loads nothing from elsewhere");
} finally {
  await browser.close();
}
