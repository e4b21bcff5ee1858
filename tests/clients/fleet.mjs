// Two servers, one PostgreSQL, one Redis, users with tokens: failures delay changes, but lose none.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import WebSocket from 'ws';
import { Device, SUBSCRIPTION, Server, check, done, median, until } from './changes.mjs';

const { BINARY, DATABASES, FOLDER, RECENTS_TEST_POSTGRES, RECENTS_TEST_REDIS } = process.env;
const SECRET = 'a secret of thirty-two bytes or more';
const MANAGER = 'hush-hush-manager';
const POLL = 2;
const database = `${RECENTS_TEST_POSTGRES}/postgres`;
const databases = (verb, name) => execFileSync(DATABASES, [verb, FOLDER, name]);

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const now = () => Math.floor(Date.now() / 1000);
function sign(claims, { secret = SECRET, header = { alg: 'HS256', typ: 'JWT' }, hash = 'sha256' } = {}) {
  const text = `${encode(header)}.${encode(claims)}`;
  return `${text}.${createHmac(hash, secret).update(text).digest('base64url')}`;
}
const token = (uid, seconds = 3600) => sign({ sub: uid, exp: now() + seconds });
const bearer = (uid) => ({ authorization: `Bearer ${token(uid)}` });

const log = [];
const all = new Set();
/// A server in a separate process, called with the manager token.
async function start(more = {}) {
  const environment = Object.entries(process.env).filter(([name]) => !name.startsWith('RECENTS_'));
  const child = spawn(BINARY, [], {
    cwd: '/',
    env: {
      ...Object.fromEntries(environment),
      RECENTS__SERVER__LISTEN: '127.0.0.1:0',
      RECENTS__SERVER__SHUTDOWN_TIMEOUT_SECONDS: '8',
      RECENTS__DATABASE__URL: database,
      RECENTS__CONVERSATION__ON: 'true',
      RECENTS__LIVE__REDIS_URL: RECENTS_TEST_REDIS,
      RECENTS__LIVE__POLL_INTERVAL_SECONDS: `${POLL}`,
      RECENTS__AUTH__MANAGER_TOKEN: MANAGER,
      RECENTS__AUTH__JWT__SECRET: SECRET,
      RECENTS__AUTH__JWT__LEEWAY_SECONDS: '0',
      RECENTS__LOG__LEVEL: 'debug,sqlx=info',
      RECENTS__LIMITS__USER_REQUESTS_PER_SECOND: '0',
      RECENTS__LIMITS__ADDRESS_REQUESTS_PER_SECOND: '0',
      ...more,
    },
  });
  all.add(child);
  let said = '';
  child.stdout.on('data', (text) => (said += text)).on('data', (text) => log.push(String(text)));
  child.stderr.on('data', (text) => log.push(String(text)));
  const ended = new Promise((resolve) => child.on('exit', (code) => resolve(code)));
  await until('the server listens', () => /listening on (\S+)/.test(said), 30);
  const server = new Server(/listening on (\S+)/.exec(said)[1], { token: MANAGER });
  return Object.assign(server, { child, ended });
}
process.on('exit', () => all.forEach((child) => child.kill('SIGKILL')));

const socketUrl = (server) => `${server.url.replace('http', 'ws')}/graphql`;
/// The transports of a subscription: a token in connection_init, in headers, or over server-sent events.
const ways = {
  socket: (server, uid) =>
    createWs({ url: socketUrl(server), webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: { Authorization: `Bearer ${token(uid)}` } }),
  header: (server, uid) => {
    class WithHeader extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { headers: bearer(uid) });
      }
    }
    return createWs({ url: socketUrl(server), webSocketImpl: WithHeader, retryAttempts: 0 });
  },
  events: (server, uid) => createSse({ url: `${server.url}/graphql`, headers: bearer(uid), retryAttempts: 0 }),
};

/// Subscribes a device to a server; resolves `ended` with the reason of the end.
function follow(way, server, device) {
  const client = ways[way](server, device.uid);
  let end;
  const ended = new Promise((resolve) => (end = resolve));
  const sink = {
    next: ({ data, errors }) => (errors ? end({ errors }) : device.apply(data.conversationChanges)),
    error: (error) => end({ error }),
    complete: () => end({ complete: true }),
  };
  const stop = client.subscribe({ query: SUBSCRIPTION, variables: device.variables }, sink);
  return { ended, stop: () => { stop(); client.dispose(); } };
}
const agrees = (server, device, seconds = 15) =>
  until(`${device.uid} holds everything`, async () => device.holds(await server.full(device)), seconds);

/// Runs writers on all of these servers until they are stopped; refused requests are repeated.
function load(servers, uids, group) {
  let running = true;
  let writes = 0;
  const writer = async (number) => {
    while (running) {
      const server = servers[(number + writes) % servers.length];
      const uid = uids[Math.floor(Math.random() * uids.length)];
      const target = { uid, channel_id: group, channel_type: 2 };
      const acts = [
        () => server.send('writer', group, 2),
        () => server.send(`friend-${number}`, uid, 1),
        () => server.post('/conversations/setUnread', { ...target, unread: Math.floor(Math.random() * 9) }),
        () => server.post('/conversations/delete', target),
      ];
      await acts[Math.floor(Math.random() * 10) % acts.length]().then(() => (writes += 1), () => sleep(20));
      await sleep(5);
    }
  };
  const writers = [0, 1, 2].map(writer);
  return async () => {
    running = false;
    await Promise.all(writers);
    return writes;
  };
}
const rss = (server) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, 'utf8'))[1]);
const cpu = (server) => {
  const fields = readFileSync(`/proc/${server.child.pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

let [one, two] = [await start(), await start()];

async function latency(device, from, number) {
  const times = [];
  for (let index = 0; index < number; index += 1) {
    const before = device.events;
    await from.send('friend', device.uid, 1);
    const begun = performance.now();
    while (device.events === before) await sleep(1);
    times.push(performance.now() - begun);
    await sleep(110);
  }
  return median(times);
}

for (const way of Object.keys(ways)) {
  await check(`events cross servers (${way})`, async () => {
    const device = new Device(`crossing-${way}`);
    const { stop } = follow(way, two, device);
    await until('the first event', () => device.events === 1);
    const took = await latency(device, one, way === 'socket' ? 100 : 20);
    await agrees(one, device);
    stop();
    assert(took < 60, `${took} ms`);
    return `median ${took.toFixed(1)} ms from the answered send on one server to the event on the other`;
  });
}

await check('Redis is killed and comes back', async () => {
  const device = new Device('without-redis');
  const { stop } = follow('socket', two, device);
  await until('the first event', () => device.events === 1);
  databases('crash', 'redis');
  const begun = performance.now();
  await one.send('friend', device.uid, 1);
  const answered = performance.now() - begun;
  await until('the event by the poll', () => device.events === 2, POLL + 3);
  const late = performance.now() - begun;
  assert(answered < 1000, `a send took ${answered} ms`);
  databases('resume', 'redis');
  await until('Redis is reached again', async () => (await one.metric('recents_live_redis_up')) === 1 && (await two.metric('recents_live_redis_up')) === 1, 15);
  await sleep(6000);
  const took = await latency(device, one, 20);
  await agrees(one, device);
  stop();
  assert(took < 60, `${took} ms`);
  return `without it the send took ${answered.toFixed(0)} ms and the event ${late.toFixed(0)} ms, then again ${took.toFixed(1)} ms`;
});

await check('the database is killed and comes back', async () => {
  const [before, during] = [new Device('before-the-crash'), new Device('during-the-crash')];
  const first = follow('socket', two, before);
  await until('the first event', () => before.events === 1);
  await one.send('friend', before.uid, 1);
  await one.send('friend', during.uid, 1);
  await until('the event', () => before.events === 2);
  databases('crash', 'postgres');
  const second = follow('events', two, during);
  await sleep(1500);
  assert.equal(during.events, 0);
  databases('resume', 'postgres');
  await until('a send', () => one.send('friend', before.uid, 1).then(() => true, () => false), 20);
  await agrees(one, before, 30);
  await agrees(one, during, 30);
  first.stop();
  second.stop();
});

await check('a client that comes back a hundred times', async () => {
  const [uid, group] = ['restless', 'restless-group'];
  await one.group(group, [uid, 'writer', 'other']);
  const device = new Device(uid);
  const stopLoad = load([one, two], [uid, 'other'], group);
  const kinds = Object.keys(ways);
  for (let round = 0; round < 100; round += 1) {
    const { stop } = follow(kinds[round % kinds.length], [one, two][Math.floor(Math.random() * 2)], device);
    await sleep(Math.random() * 250);
    stop();
  }
  const writes = await stopLoad();
  const { stop } = follow('socket', one, device);
  await agrees(two, device);
  stop();
  return `${device.events} events of ${writes} writes`;
});

await check('a rolling restart', async () => {
  const group = 'rolling-group';
  const devices = Array.from({ length: 6 }, (_, number) => new Device(`rolling-${number}`));
  const uids = devices.map(({ uid }) => uid);
  await one.group(group, [...uids, 'writer']);
  const servers = [one, two];
  const stopLoad = load(servers, uids, group);
  const followed = devices.map((device, number) => ({ device, way: Object.keys(ways)[number % 3], on: 0 }));
  const ends = [];
  let running = true;
  let tell;
  const stopped = new Promise((resolve) => (tell = resolve));
  const followers = followed.map(async (it) => {
    while (running) {
      const { ended, stop } = follow(it.way, servers[it.on], it.device);
      const why = await Promise.race([ended, stopped.then(() => 'stop')]);
      stop();
      if (why === 'stop') return;
      ends.push({ way: it.way, why });
      it.on = 1 - it.on;
      await sleep(50);
    }
  });
  await sleep(1500);
  const codes = [];
  for (const index of [0, 1]) {
    const old = servers[index];
    const begun = performance.now();
    old.child.kill('SIGTERM');
    codes.push(await old.ended);
    assert(performance.now() - begun < 10_000, 'it took too long to stop');
    servers[index] = await start();
    await sleep(1500);
  }
  [one, two] = servers;
  const writes = await stopLoad();
  running = false;
  tell();
  await Promise.all(followers);
  assert.deepEqual(codes, [0, 0]);
  const closes = ends.filter(({ way }) => way !== 'events').map(({ why }) => why.error?.code);
  assert(closes.length > 0 && closes.includes(1001), `closed with ${closes}`);
  assert(ends.every(({ why }) => !why.complete), 'nobody is told that it is complete');
  for (const device of devices) {
    const { stop } = follow('socket', one, device);
    await agrees(two, device);
    stop();
  }
  return `${writes} writes, streams ended ${ends.length} times, nothing lost`;
});

await check('who does not read is closed, and costs no memory', async () => {
  const server = await start({ RECENTS__LIVE__WRITE_TIMEOUT_SECONDS: '2', RECENTS__LIVE__REDIS_URL: '' });
  const [uid, group] = ['stuck', 'stuck-group'];
  await server.group(group, [uid, 'fine', 'writer']);
  const text = 'x'.repeat(50_000);
  for (let number = 0; number < 20; number += 1) await server.send('writer', group, 2, text);
  const socket = new WebSocket(socketUrl(server), ['graphql-transport-ws'], { headers: bearer(uid) });
  await new Promise((resolve) => socket.on('open', resolve));
  socket.send('{"type":"connection_init"}');
  const query = SUBSCRIPTION.replace('recents { id messageSeq }', 'recents { id payload }');
  for (let id = 0; id < 10; id += 1) {
    socket.send(JSON.stringify({ id: `${id}`, type: 'subscribe', payload: { query, variables: { uid, version: 0, count: 20 } } }));
  }
  socket._socket.pause();
  const fine = new Device('fine');
  const other = follow('socket', server, fine);
  await until('the first event', () => fine.events === 1);
  const before = rss(server);
  for (let number = 0; number < 40; number += 1) {
    await server.send('writer', group, 2, text);
    await sleep(60);
  }
  await until('it is closed', async () => (await server.metric('recents_live_closed_total{reason="slow"}')) >= 1, 15);
  const grown = (rss(server) - before) / 1024;
  await agrees(server, fine);
  other.stop();
  socket.terminate();
  server.child.kill('SIGTERM');
  await server.ended;
  assert(grown < 80, `${grown} MiB`);
  return `${grown.toFixed(0)} MiB more`;
});

await check('a token that expires ends the connection', async () => {
  for (const way of ['socket', 'events']) {
    const uid = `short-${way}`;
    const short = { authorization: `Bearer ${token(uid, 3)}` };
    const begun = performance.now();
    let why;
    if (way === 'socket') {
      const client = createWs({ url: socketUrl(one), webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: short });
      why = await new Promise((resolve) => client.subscribe({ query: SUBSCRIPTION, variables: { uid } }, { next() {}, error: resolve, complete: () => resolve('complete') }));
      assert.equal(why.code, 4403);
    } else {
      const answer = await fetch(`${one.url}/graphql`, {
        method: 'POST',
        headers: { ...short, 'content-type': 'application/json', accept: 'text/event-stream' },
        body: JSON.stringify({ query: SUBSCRIPTION, variables: { uid } }),
      });
      const text = await answer.text();
      assert(text.includes('event: next') && !text.includes('event: complete'), text);
    }
    const seconds = (performance.now() - begun) / 1000;
    assert(seconds > 1 && seconds < 5, `after ${seconds} s`);
  }
});

const good = token('forged');
const [head, claims, signature] = good.split('.');
const forged = {
  expired: token('forged', -60),
  'another secret': sign({ sub: 'forged', exp: now() + 60 }, { secret: 'another one' }),
  none: `${encode({ alg: 'none' })}.${claims}.`,
  'another algorithm said': `${encode({ alg: 'RS256' })}.${claims}.${signature}`,
  HS384: sign({ sub: 'forged', exp: now() + 60 }, { header: { alg: 'HS384' }, hash: 'sha384' }),
  HS512: sign({ sub: 'forged', exp: now() + 60 }, { header: { alg: 'HS512' }, hash: 'sha512' }),
  'other claims': `${head}.${encode({ sub: 'somebody', exp: now() + 60 })}.${signature}`,
  'no exp': sign({ sub: 'forged' }),
  'no sub': sign({ exp: now() + 60 }),
  'an empty sub': sign({ sub: '', exp: now() + 60 }),
  'not yet': sign({ sub: 'forged', exp: now() + 600, nbf: now() + 300 }),
  garbage: 'let-me-in-please',
  dots: '..',
};
await check('forged tokens of every kind are refused', async () => {
  for (const [what, bad] of Object.entries(forged)) {
    const authorization = `Bearer ${bad}`;
    const answer = await fetch(`${one.url}/graphql`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: JSON.stringify({ query: '{ unreadSummary { total } }' }),
    });
    assert.deepEqual([answer.status, answer.headers.get('www-authenticate')], [401, 'Bearer'], what);
    assert.equal((await answer.json()).errors[0].extensions.code, 'UNAUTHENTICATED', what);
    const client = createWs({ url: socketUrl(one), webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: { authorization } });
    const why = await new Promise((resolve) => client.subscribe({ query: '{ __typename }' }, { next: resolve, error: resolve, complete() {} }));
    assert.equal(why.code, 4403, what);
  }
  const client = createWs({ url: socketUrl(one), webSocketImpl: WebSocket, retryAttempts: 0 });
  const why = await new Promise((resolve) => client.subscribe({ query: '{ __typename }' }, { next: resolve, error: resolve, complete() {} }));
  assert.equal(why.code, 4403, 'no token');
  return `${Object.keys(forged).length} kinds`;
});

await check('nobody acts for another one', async () => {
  const channel = 'channel: {channelId: "x", channelType: 2}';
  for (const query of [
    '{ unreadSummary(uid: "bob") { total } }',
    `mutation { setUnread(input: {uid: "bob", ${channel}, unread: 0}) { conversation { id } } }`,
  ]) {
    const answer = await one.graphql(query, {}, bearer('ann'));
    assert.equal(answer.errors[0].extensions.code, 'FORBIDDEN', query);
  }
  const client = ways.socket(one, 'ann');
  const why = await new Promise((resolve) =>
    client.subscribe({ query: 'subscription { conversationChanges(uid: "bob") { version } }' }, { next: ({ errors }) => resolve(errors), error: resolve, complete() {} }),
  );
  assert.equal(why[0].extensions.code, 'FORBIDDEN');
  client.dispose();
  const post = (headers) => fetch(`${one.url}/conversation/sync`, { method: 'POST', headers, body: '{"uid":"bob"}' });
  const refused = await post(bearer('ann'));
  assert.deepEqual([refused.status, (await refused.json()).status], [403, 403]);
  const unknown = await post({});
  assert.deepEqual([unknown.status, await unknown.text()], [401, '']);
});

await check('limits on connections and operations', async () => {
  const server = await start({
    RECENTS__LIMITS__MAX_USER_LIVE_CONNECTIONS: '2',
    RECENTS__LIMITS__MAX_SUBSCRIPTIONS: '2',
    RECENTS__LIMITS__MAX_LIVE_CONNECTIONS: '4',
    RECENTS__LIVE__REDIS_URL: '',
  });
  const open = async (uid) => {
    const client = createWs({ url: socketUrl(server), webSocketImpl: WebSocket, retryAttempts: 0, lazy: false, connectionParams: { Authorization: `Bearer ${token(uid)}` }, onNonLazyError() {} });
    const closed = new Promise((resolve) => client.on('closed', (event) => resolve(event.code)));
    const connected = new Promise((resolve) => {
      client.on('connected', () => resolve('connected'));
      client.on('error', () => resolve('refused'));
    });
    return { client, closed, state: await Promise.race([connected, closed]) };
  };
  // The oldest connection of a user gives way to a new one.
  const ann = [await open('ann'), await open('ann'), await open('ann')];
  assert.deepEqual(ann.map(({ state }) => state), ['connected', 'connected', 'connected']);
  assert.equal(await ann[0].closed, 4429);
  const events = await fetch(`${server.url}/graphql`, {
    method: 'POST',
    headers: { ...bearer('ann'), 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: SUBSCRIPTION, variables: {} }),
  });
  assert.equal(events.status, 200);
  assert.equal(await ann[1].closed, 4429);
  const others = [await open('bob'), await open('bob'), await open('cat')];
  assert.deepEqual(others.map(({ state }) => state).slice(0, 2), ['connected', 'connected']);
  assert.notEqual(others[2].state, 'connected', 'the server has no more places');
  const outcomes = [0, 1, 2].map(
    () =>
      new Promise((resolve) =>
        ann[2].client.subscribe({ query: SUBSCRIPTION, variables: {} }, { next: () => resolve('next'), error: (errors) => resolve(errors[0].extensions.code), complete() {} }),
      ),
  );
  assert.deepEqual(await Promise.all(outcomes), ['next', 'next', 'RATE_LIMITED']);
  for (const { client } of [...ann, ...others]) client.dispose();
  await events.body.cancel();
  server.child.kill('SIGTERM');
  assert.equal(await server.ended, 0);
});

for (const [connections, each] of [
  [200, 10],
  [2000, 1],
]) {
  await check(`2,000 idle subscriptions, ${each} on each of ${connections} connections`, async () => {
    const server = await start({ RECENTS__LIMITS__MAX_SUBSCRIPTIONS: '20', RECENTS__LIVE__POLL_INTERVAL_SECONDS: '5', RECENTS__LOG__LEVEL: 'info' });
    const group = `idle-group-${each}`;
    const name = (number) => `idle-${each}-${number}`;
    await server.group(group, Array.from({ length: 100 }, (_, number) => name(number * 20)));
    await sleep(500);
    const before = rss(server);
    let told = 0;
    const sockets = [];
    for (let number = 0; number < connections; number += 1) {
      const socket = new WebSocket(socketUrl(server), ['graphql-transport-ws'], { headers: { token: MANAGER } });
      sockets.push(socket);
      socket.on('message', (text) => (told += String(text).includes('"next"') ? 1 : 0));
      await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
      socket.send('{"type":"connection_init"}');
      for (let id = 0; id < each; id += 1) {
        const variables = { uid: name(number * each + id), version: 0, count: 1 };
        socket.send(JSON.stringify({ id: `${id}`, type: 'subscribe', payload: { query: SUBSCRIPTION, variables } }));
      }
    }
    await until('all of them begin', () => told === 2000, 60);
    await sleep(1000);
    const size = (rss(server) - before) / 2000;
    const used = cpu(server);
    await sleep(5000);
    const idle = ((cpu(server) - used) / 5) * 100;
    const begun = performance.now();
    await one.send('writer', group, 2);
    await until('the members are told', () => told === 2100);
    const took = performance.now() - begun;
    for (const socket of sockets) socket.terminate();
    server.child.kill('SIGTERM');
    assert.equal(await server.ended, 0);
    assert(size < 100, `${size} KiB each`);
    return `${size.toFixed(1)} KiB each, ${idle.toFixed(1)} % of a core when idle; a message to 100 of them took ${took.toFixed(0)} ms`;
  });
}

await check('no secret is in any log', async () => {
  const text = log.join('');
  assert(text.length > 1000, 'there is a log');
  for (const secret of [SECRET, MANAGER, good, 'let-me-in-please', ...Object.values(forged).filter((bad) => bad.length > 20)]) {
    assert(!text.includes(secret), 'a secret is in the log');
  }
});

for (const server of [one, two]) {
  server.child.kill('SIGTERM');
  assert.equal(await server.ended, 0);
}
done('two servers');
process.exit(0);
