// Shared by the live clients: a device that applies responses and events, and functions that change its data.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

export const FIELDS = `version reset hasMore
  conversations { id channelId channelType unread lastMsgSeq version pinnedAt recents { id messageSeq } }
  removed { id version }`;
export const SUBSCRIPTION = `subscription Live($uid: ID, $version: UInt53, $count: Int) {
  conversationChanges(uid: $uid, version: $version, msgCount: $count) { ${FIELDS} } }`;
export const QUERY = `query Sync($uid: ID, $version: UInt53, $count: Int) {
  conversations(uid: $uid, version: $version, msgCount: $count) { ${FIELDS} } }`;

/// A device: its conversations and its version.
export class Device {
  constructor(uid, count = 3) {
    Object.assign(this, { uid, count, version: 0, held: new Map(), events: 0 });
  }

  get variables() {
    return { uid: this.uid, version: this.version, count: this.count };
  }

  apply(answer) {
    this.events += 1;
    if (answer.reset) this.held.clear();
    else assert(answer.version >= this.version, `the version went back from ${this.version} to ${answer.version}`);
    for (const conversation of answer.conversations) {
      assert(answer.reset || conversation.version > this.version, 'a conversation that was told before');
      this.held.set(conversation.id, conversation);
    }
    for (const removed of answer.removed) this.held.delete(removed.id);
    this.version = answer.version;
  }

  holds(full) {
    const sorted = (all) => [...all].sort((a, b) => (a.id < b.id ? -1 : 1));
    try {
      assert.deepEqual(sorted(this.held.values()), sorted(full.conversations));
      return true;
    } catch {
      return false;
    }
  }
}

export const payload = (text) => Buffer.from(JSON.stringify({ type: 1, content: text })).toString('base64');

/// One server, or any of several.
export class Server {
  constructor(url, headers = {}) {
    Object.assign(this, { url, headers, sent: 0 });
  }

  async post(path, body) {
    const answer = await fetch(`${this.url}${path}`, { method: 'POST', headers: this.headers, body: JSON.stringify(body) });
    const text = await answer.text();
    assert.equal(answer.status, 200, `${path}: ${text}`);
    return JSON.parse(text);
  }

  async graphql(query, variables = {}, headers = this.headers) {
    const answer = await fetch(`${this.url}/graphql`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    return answer.json();
  }

  async data(query, variables) {
    const answer = await this.graphql(query, variables);
    assert.equal(answer.errors, undefined, JSON.stringify(answer));
    return answer.data;
  }

  /// A full sync of the device's user.
  async full(device) {
    return (await this.data(QUERY, { ...device.variables, version: 0 })).conversations;
  }

  send(from, channel, kind, text = 'hello') {
    this.sent += 1;
    const body = { header: { red_dot: 1 }, from_uid: from, channel_id: channel, channel_type: kind, payload: payload(text) };
    return this.post('/message/send', { ...body, client_msg_no: `${process.pid}-${Date.now()}-${this.sent}-${Math.random()}` });
  }

  group(id, uids) {
    return this.post('/channel', { channel_id: id, channel_type: 2, subscribers: uids });
  }

  async metric(name) {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const line = text.split('\n').find((line) => line.startsWith(`${name} `));
    return line ? Number(line.slice(name.length + 1)) : 0;
  }
}

/// Waits until the condition is true.
export async function until(what, check, seconds = 10) {
  const deadline = Date.now() + seconds * 1000;
  while (!(await check())) {
    assert(Date.now() < deadline, `${what}: not within ${seconds} s`);
    await sleep(10);
  }
}

export const median = (times) => [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)];

let passed = 0;
export async function check(name, run) {
  const figures = await run();
  passed += 1;
  console.log(`ok ${name}${figures ? `: ${figures}` : ''}`);
}
export const done = (what) => console.log(`${what}: ${passed} checks passed`);
