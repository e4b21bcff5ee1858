// Hostile documents: each is refused, costs the server little, and leaves no memory in use.
// PID is the server's: its processor time and memory are read from /proc.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const { RECENTS, PID } = process.env;
const TIMES = 100;
// A release build takes a fraction of it; /proc counts in steps of 10 ms.
const MOST_MILLISECONDS = 5;
const MOST_MEGABYTES = 64;

const bomb = (levels) => {
  const spread = (level) => `fragment f${level} on Query{...f${level + 1} ...f${level + 1}}`;
  return `{...f0}${Array.from({ length: levels }, (_, level) => spread(level)).join("")}fragment f${levels} on Query{__typename}`;
};
const many = (number, text) => Array.from({ length: number }, (_, index) => text(index)).join(" ");
const documents = {
  "30 levels of fragments": bomb(30),
  "2,000 aliases": `{${many(2000, (index) => `a${index}:__typename`)}}`,
  "deep introspection": `{__schema{types${"{fields{type".repeat(8)}{name}${"}}".repeat(8)}}}`,
  "20,000 directives": `{__typename${" @x".repeat(20_000)}}`,
  "60,000 open braces": "{".repeat(60_000),
  "60,000 open brackets": `{a(b:${"[".repeat(60_000)}`,
  "60 levels of fields": "{a".repeat(60) + "}".repeat(60),
  "1,000 × 500 messages": '{conversationList(uid:"u02",first:1000){nodes{recents(last:500){id payload content}}}}',
  "2,000 root fields": `{${many(2000, () => "__typename")}}`,
  "a chain of 2,000 fragments": `{__typename}${many(2000, (index) => `fragment f${index} on Query{...f${index + 1}}`)}`,
  "a document of 70,000 bytes": "#".repeat(70_000),
};

const processor = () => {
  const fields = readFileSync(`/proc/${PID}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
};
const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${PID}/status`, "utf8"))[1]) / 1024;

const ask = async (query) => {
  const headers = { "content-type": "application/json", accept: "application/graphql-response+json" };
  const response = await fetch(`${RECENTS}/graphql`, { method: "POST", headers, body: JSON.stringify({ query }) });
  return { status: response.status, answer: await response.json() };
};

await ask("{ __typename }");
const before = memory();
const rows = [];
for (const [name, document] of Object.entries(documents)) {
  const began = processor();
  for (let time = 0; time < TIMES; time++) {
    const { status, answer } = await ask(document);
    assert.equal(status, 400, name);
    assert.equal(answer.errors[0].extensions.code, "QUERY_TOO_COMPLEX", name);
  }
  const milliseconds = (processor() - began) / TIMES;
  rows.push(`${name.padEnd(30)} ${String(document.length).padStart(6)} bytes ${milliseconds.toFixed(2)} ms of processor time`);
  assert.ok(milliseconds < MOST_MILLISECONDS, rows.at(-1));
}
const grown = memory() - before;
assert.ok(grown < MOST_MEGABYTES, `${grown} MiB more memory`);
console.log(`${rows.join("\n")}\nhostile documents: refused, ${grown.toFixed(1)} MiB more memory`);
