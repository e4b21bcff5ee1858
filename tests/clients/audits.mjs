// All audits of GraphQL over HTTP against a running server.
import assert from 'node:assert/strict';
import { serverAudits } from 'graphql-http';

const url = `${process.env.RECENTS}/graphql`;
const audits = serverAudits({ url });
assert.equal(audits.length, 61, 'graphql-http has other audits now');

const bad = [];
for (const audit of audits) {
  const result = await audit.fn();
  if (result.status === 'ok') continue;
  const answer = result.response ? `${result.response.status} ${await result.response.clone().text().catch(() => '')}` : '';
  bad.push(`${audit.id} ${result.status}: ${audit.name}: ${result.reason} ${answer}`);
}
for (const line of bad) console.error(line);
assert.equal(bad.length, 0, `${bad.length} of ${audits.length} audits are not ok`);
console.log(`audits: ${audits.length} of ${audits.length} are ok`);
