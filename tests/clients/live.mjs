// Live updates with the clients that web teams use, and with hand-written protocol messages, on one server without authentication.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import WebSocket from 'ws';
import { Device, QUERY, SUBSCRIPTION, Server, check, done, median, until } from './changes.mjs';

const url = process.env.RECENTS;
const socketUrl = `${url.replace('http', 'ws')}/graphql`;
const server = new Server(url);
const run = `live-${process.pid}`;

const ways = {
  'graphql-ws': () => {
    const client = createWs({ url: socketUrl, webSocketImpl: WebSocket, retryAttempts: 0 });
    return { subscribe: (request, sink) => client.subscribe(request, sink), end: () => client.dispose() };
  },
  'graphql-sse': () => {
    const client = createSse({ url: `${url}/graphql`, retryAttempts: 0 });
    return { subscribe: (request, sink) => client.subscribe(request, sink), end: () => client.dispose() };
  },
};
// urql over either transport.
for (const [name, make] of Object.entries({ ...ways })) {
  ways[`urql with ${name}`] = () => {
    const below = make();
    const forward = (request) => ({
      subscribe: (sink) => ({ unsubscribe: below.subscribe({ ...request, query: request.query ?? '' }, sink) }),
    });
    const client = new Client({
      url: `${url}/graphql`,
      preferGetMethod: false,
      exchanges: [fetchExchange, subscriptionExchange({ forwardSubscription: forward })],
    });
    const subscribe = ({ query, variables }, sink) => {
      const source = client.subscription(query, variables);
      const { unsubscribe } = source.subscribe((result) => (result.error ? sink.error(result.error) : sink.next({ data: result.data })));
      return unsubscribe;
    };
    return { subscribe, end: below.end };
  };
}

/// Subscribes a device.
function follow(client, device) {
  const sink = {
    next: ({ data, errors }) => {
      assert.equal(errors, undefined, JSON.stringify(errors));
      device.apply(data.conversationChanges);
    },
    error: (error) => {
      device.error = error;
    },
    complete: () => {},
  };
  return client.subscribe({ query: SUBSCRIPTION, variables: device.variables }, sink);
}

for (const [name, make] of Object.entries(ways)) {
  await check(`${name}: every kind of change is an event`, async () => {
    const [me, friend, group] = ['me', 'friend', 'group'].map((what) => `${run}-${name.replaceAll(' ', '-')}-${what}`);
    const channel = `channel: {channelId: "${group}", channelType: 2}`;
    await server.group(group, [me, friend]);
    await server.send(friend, group, 2, 'before');
    const client = make();
    const device = new Device(me);
    const expected = (await server.data(QUERY, device.variables)).conversations;
    const stop = follow(client, device);
    await until('the first event', () => device.events === 1 || device.error);
    assert.equal(device.error, undefined);
    assert(device.holds(expected) && device.version === expected.version, 'the first event is the answer of the query');
    const target = { uid: me, channel_id: group, channel_type: 2 };
    const changes = [
      () => server.send(friend, group, 2, 'a message'),
      () => server.send(friend, me, 1, 'from a person that was not there before'),
      () => server.post('/conversations/setUnread', { ...target, unread: 7 }),
      () => server.post('/conversations/delete', target),
      () => server.send(friend, group, 2, 'back'),
      () => server.data(`mutation { pinConversation(input: {uid: "${me}", ${channel}}) { conversation { id } } }`),
      () => server.group(`${group}-2`, [me]).then(() => server.send(friend, `${group}-2`, 2, 'a new group')),
      () => server.post('/channel/subscriber_remove', { channel_id: `${group}-2`, channel_type: 2, subscribers: [me] }),
      () => server.data(`mutation { deleteChannel(input: {${channel}}) { channel { id } } }`),
    ];
    for (const change of changes) {
      const before = device.events;
      await change();
      await until('the event', async () => device.events > before && device.holds(await server.full(device)));
    }
    stop();
    client.end();
    return `${changes.length} changes, ${device.events} events`;
  });
}

await check('after a break it goes on with the version of the last event', async () => {
  const [me, friend] = [`${run}-break`, `${run}-friend`];
  const device = new Device(me);
  for (const make of [ways['graphql-ws'], ways['graphql-sse'], ways['graphql-ws']]) {
    const client = make();
    const events = device.events;
    const stop = follow(client, device);
    await until('the first event', () => device.events > events);
    await server.send(friend, me, 1);
    await until('the event', async () => device.holds(await server.full(device)));
    stop();
    client.end();
    await server.send(friend, me, 1, 'meanwhile');
  }
  device.apply((await server.data(QUERY, device.variables)).conversations);
  assert(device.holds(await server.full(device)));
});

await check('queries, mutations and errors go over the WebSocket, too', async () => {
  const client = createWs({ url: socketUrl, webSocketImpl: WebSocket, retryAttempts: 0, lazy: false });
  const one = (query) =>
    new Promise((resolve, reject) => {
      let answer;
      client.subscribe({ query }, { next: (value) => (answer = value), error: reject, complete: () => resolve(answer) });
    });
  assert.deepEqual((await one('{ __typename }')).data, { __typename: 'Query' });
  const marked = await one(`mutation { markAllRead(input: {uid: "${run}-nobody"}) { conversations { id } } }`);
  assert.deepEqual(marked.data.markAllRead.conversations, []);
  const refused = await one('{ unreadSummary { total } }');
  assert.equal(refused.errors[0].extensions.code, 'BAD_USER_INPUT');
  await assert.rejects(one('{ nope }'), (errors) => errors[0].extensions.code === 'GRAPHQL_VALIDATION_FAILED');
  await assert.rejects(one('{'), (errors) => errors[0].extensions.code === 'GRAPHQL_PARSE_FAILED');
  await client.dispose();
});

await check('an open chat is told every message', async () => {
  const [me, friend] = [`${run}-chat`, `${run}-other`];
  await server.send(friend, me, 1, 'first');
  const client = ways['graphql-ws']();
  const seqs = [];
  const query = `subscription { messageAdded(uid: "${me}", channel: {channelId: "${friend}", channelType: 1}, after: 0) { messageSeq } }`;
  client.subscribe({ query }, { next: ({ data }) => seqs.push(data.messageAdded.messageSeq), error: assert.fail, complete() {} });
  for (let seq = 2; seq <= 10; seq += 1) await server.send(friend, me, 1);
  await until('all messages', () => seqs.length === 10);
  assert.deepEqual(seqs, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  client.end();
});

await check('a burst is a few events', async () => {
  const [me, friend, group] = [`${run}-burst`, `${run}-sender`, `${run}-busy`];
  await server.group(group, [me, friend]);
  const client = ways['graphql-ws']();
  const device = new Device(me);
  follow(client, device);
  await until('the first event', () => device.events === 1);
  await Promise.all(Array.from({ length: 100 }, () => server.send(friend, group, 2)));
  await until('the state', async () => device.holds(await server.full(device)));
  client.end();
  assert(device.events - 1 <= 30, `${device.events - 1} events`);
  return `${device.events - 1} events for 100 messages`;
});

await check('how long an event takes', async () => {
  const [me, friend] = [`${run}-fast`, `${run}-sender`];
  const client = ways['graphql-ws']();
  const device = new Device(me);
  follow(client, device);
  await until('the first event', () => device.events === 1);
  const times = [];
  for (let number = 0; number < 50; number += 1) {
    const before = device.events;
    await server.send(friend, me, 1);
    const begun = performance.now();
    while (device.events === before) await sleep(1);
    times.push(performance.now() - begun);
    await sleep(110);
  }
  client.end();
  return `median ${median(times).toFixed(1)} ms from the answered send`;
});

/// The server's messages to hand-written protocol messages.
function raw(options = {}) {
  const socket = new WebSocket(socketUrl, options.protocol === null ? [] : [options.protocol ?? 'graphql-transport-ws'], options);
  const said = [];
  const closed = new Promise((resolve) => socket.on('close', (code, reason) => resolve([code, String(reason)])));
  socket.on('message', (text) => said.push(JSON.parse(text)));
  const opened = new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  const say = (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  const hear = (type) => until(type, () => said.some((message) => message.type === type)).then(() => said);
  return { socket, said, closed, opened, say, hear };
}

async function open(options) {
  const it = raw(options);
  await it.opened;
  return it;
}

async function begun() {
  const it = await open();
  it.say({ type: 'connection_init' });
  await it.hear('connection_ack');
  return it;
}

const follows = { query: SUBSCRIPTION, variables: { uid: `${run}-raw` } };
for (const [name, code, act] of [
  ['what is no JSON', 4400, async () => [await open(), 'hello']],
  ['a type that there is not', 4400, async () => [await open(), { type: 'start' }]],
  ['an operation without an id', 4400, async () => [await begun(), { type: 'subscribe', payload: follows }]],
  ['an operation without a query that is text', 4400, async () => [await begun(), { id: '1', type: 'subscribe', payload: { query: 1 } }]],
  ['an operation before connection_init', 4401, async () => [await open(), { id: '1', type: 'subscribe', payload: follows }]],
  ['two of connection_init', 4429, async () => [await begun(), { type: 'connection_init' }]],
  ['a message over the limit', 1009, async () => [await begun(), JSON.stringify({ type: 'ping', payload: { x: 'x'.repeat(300_000) } })]],
]) {
  await check(`${name} is closed with ${code}`, async () => {
    const [it, message] = await act();
    it.say(message);
    assert.equal((await it.closed)[0], code);
  });
}
await check('bytes are closed with 4400', async () => {
  const it = await open();
  it.socket.send(Buffer.from('{"type":"connection_init"}'), { binary: true });
  assert.equal((await it.closed)[0], 4400);
});
await check('the same id twice is closed with 4409', async () => {
  const it = await begun();
  it.say({ id: 'same', type: 'subscribe', payload: follows });
  it.say({ id: 'same', type: 'subscribe', payload: follows });
  assert.equal((await it.closed)[0], 4409);
});
await check('silence is closed with 4408', async () => {
  const it = await open();
  assert.equal((await it.closed)[0], 4408);
});
await check('another protocol is closed with 4406', async () => {
  const it = raw({ protocol: null });
  assert.equal((await it.closed)[0], 4406);
});
await check('pings are answered, before and after the beginning', async () => {
  const it = await open();
  it.say({ type: 'ping', payload: { any: 'thing' } });
  await it.hear('pong');
  it.say({ type: 'connection_init' });
  await it.hear('connection_ack');
  it.say({ type: 'ping' });
  await until('the second', () => it.said.filter(({ type }) => type === 'pong').length === 2);
  it.socket.close();
});
await check('complete ends an operation, and its id can be used again', async () => {
  const it = await begun();
  const nexts = () => it.said.filter(({ type }) => type === 'next').length;
  it.say({ id: '1', type: 'subscribe', payload: follows });
  await until('the first event', () => nexts() === 1);
  it.say({ id: '1', type: 'complete' });
  await sleep(100);
  await server.send(`${run}-friend`, `${run}-raw`, 1);
  await sleep(300);
  assert.equal(nexts(), 1, 'nothing is told after complete');
  it.say({ id: '1', type: 'subscribe', payload: follows });
  await until('the first event again', () => nexts() === 2);
  it.socket.close();
});
await check('pages of other origins are refused at the upgrade', async () => {
  const refused = raw({ origin: 'https://evil.example.com' });
  await assert.rejects(refused.opened, /403/);
  const own = await open({ origin: url });
  own.socket.close();
});

await check('server-sent events as the protocol has them', async () => {
  const ask = (query, headers) =>
    fetch(`${url}/graphql`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify({ query }) });
  const streamed = await ask('{ __typename }', { accept: 'text/event-stream' });
  assert.match(streamed.headers.get('content-type'), /^text\/event-stream/);
  assert.equal(await streamed.text(), ':\n\nevent: next\ndata: {"data":{"__typename":"Query"}}\n\nevent: complete\ndata: {}\n\n');
  const refused = await ask(`subscription { conversationChanges(uid: "${run}") { version } }`, {});
  assert.equal(refused.status, 400);
  assert.match((await refused.json()).errors[0].message, /text\/event-stream/);
});

await check('nobody is left behind', async () => {
  const text = async () => (await (await fetch(`${url}/metrics`)).text()).split('\n').filter((line) => line.startsWith('recents_live_connections'));
  await until('all connections are gone', async () => (await text()).every((line) => line.endsWith(' 0')));
});
done('live');
