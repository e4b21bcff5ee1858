// WuKongIM's JavaScript SDK with its conversation provider pointed at this server, and the needs of its other clients.
import assert from 'node:assert/strict';
import { Server, check, done } from './changes.mjs';

// It is written for browsers and bundlers: scripts/try-clients bundles this file.
globalThis.window ??= globalThis;
globalThis.localStorage ??= { getItem: () => null, setItem() {}, removeItem() {} };
const { WKSDK, Channel, Conversation, Message, MessageText, PullMode } = await import('wukongimjssdk/lib/sdk');

const server = new Server(process.env.RECENTS);
const run = `sdk-${process.pid}`;
const [me, friend, group] = [`${run}-me`, `${run}-friend`, `${run}-group`];
const sdk = WKSDK.shared();

/// As text: the SDK's clients keep `message_idstr`, because numbers above 2^53 lose digits.
async function text(path, body) {
  const answer = await fetch(`${server.url}${path}`, { method: 'POST', body: JSON.stringify(body) });
  const said = await answer.text();
  if (answer.status !== 200) throw new Error(JSON.parse(said).msg);
  return said;
}

/// As the SDK's demo converts them.
function toMessage(from) {
  const message = new Message();
  Object.assign(message, {
    messageID: from.message_idstr,
    messageSeq: from.message_seq,
    clientMsgNo: from.client_msg_no,
    fromUID: from.from_uid,
    timestamp: from.timestamp,
    channel: from.channel_type === 1 && from.channel_id === me ? new Channel(from.from_uid, 1) : new Channel(from.channel_id, from.channel_type),
  });
  message.header.reddot = from.header.red_dot === 1;
  const content = JSON.parse(Buffer.from(from.payload, 'base64').toString());
  const into = sdk.getMessageContent(content.type);
  into.decode(new Uint8Array(Buffer.from(from.payload, 'base64')));
  message.content = into;
  return message;
}
function toConversation(from) {
  const conversation = new Conversation();
  Object.assign(conversation, {
    channel: new Channel(from.channel_id, from.channel_type),
    unread: from.unread,
    timestamp: from.timestamp,
    extra: { version: from.version },
  });
  assert(Array.isArray(from.recents) && from.recents.length > 0);
  conversation.lastMessage = toMessage(from.recents[0]);
  return conversation;
}

let version = 0;
sdk.config.uid = me;
sdk.config.provider.syncConversationsCallback = async () => {
  const items = JSON.parse(await text('/conversation/sync', { uid: me, version, msg_count: 20 }));
  version = Math.max(version, ...items.map((item) => item.version));
  return items.map(toConversation);
};
sdk.config.provider.syncMessagesCallback = async (channel, options) => {
  const answer = JSON.parse(
    await text('/channel/messagesync', {
      login_uid: me,
      channel_id: channel.channelID,
      channel_type: channel.channelType,
      start_message_seq: options.startMessageSeq,
      end_message_seq: options.endMessageSeq,
      limit: options.limit,
      pull_mode: options.pullMode,
    }),
  );
  return answer.messages.map(toMessage);
};

await server.group(group, [me, friend]);
for (let number = 1; number <= 30; number += 1) await server.send(friend, group, 2, `number ${number}`);
await server.send(friend, me, 1, 'to you alone');

await check('conversations, with their last message and what is unread', async () => {
  const conversations = await sdk.conversationManager.sync();
  assert.equal(conversations.length, 2);
  const [first, second] = [new Channel(friend, 1), new Channel(group, 2)].map((channel) => sdk.conversationManager.findConversation(channel));
  assert.equal(first.lastMessage.content.text, 'to you alone');
  assert(first.lastMessage.content instanceof MessageText);
  assert.equal(second.lastMessage.content.text, 'number 30', 'the first of recents is the last message');
  assert.equal(second.lastMessage.messageSeq, 30);
  assert.deepEqual([first.unread, second.unread], [1, 30]);
  assert.equal(sdk.conversationManager.getAllUnreadCount(), 31);
});

await check('what is read and deleted elsewhere, with the version only', async () => {
  await text('/conversations/setUnread', { uid: me, channel_id: group, channel_type: 2, unread: 3 });
  let changed = await sdk.config.provider.syncConversationsCallback();
  assert.deepEqual(changed.map(({ unread }) => unread), [3]);
  await text('/conversations/delete', { uid: me, channel_id: friend, channel_type: 1 });
  changed = await sdk.config.provider.syncConversationsCallback();
  assert.deepEqual(changed, []);
  await server.send(friend, me, 1, 'back');
  changed = await sdk.config.provider.syncConversationsCallback();
  assert.deepEqual(changed.map(({ channel, unread }) => [channel.channelID, unread]), [[friend, 1]]);
});

await check('history in both directions', async () => {
  const channel = new Channel(group, 2);
  const seqs = async (options) => (await sdk.chatManager.syncMessages(channel, { startMessageSeq: 0, endMessageSeq: 0, limit: 10, ...options })).map(({ messageSeq }) => messageSeq);
  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);
  assert.deepEqual(await seqs({ pullMode: PullMode.Down }), range(21, 30));
  assert.deepEqual(await seqs({ pullMode: PullMode.Down, startMessageSeq: 20 }), range(11, 20));
  assert.deepEqual(await seqs({ pullMode: PullMode.Down, startMessageSeq: 20, endMessageSeq: 15 }), range(16, 20));
  assert.deepEqual(await seqs({ pullMode: PullMode.Up, startMessageSeq: 5 }), range(5, 14));
  assert.deepEqual(await seqs({ pullMode: PullMode.Up, startMessageSeq: 5, endMessageSeq: 8 }), range(5, 7));
});

await check('what is wrong stands in msg', async () => {
  await assert.rejects(text('/conversations/clearUnread', { channel_id: group, channel_type: 2 }), /^Error: uid cannot be empty$/);
});

await check('ids are the same as number and as text', async () => {
  const said = await text('/conversation/sync', { uid: me, msg_count: 20 });
  const pairs = [...said.matchAll(/"message_id":(\d+),"message_idstr":"(\d+)"/g)];
  assert(pairs.length > 20 && pairs.every(([, number, text]) => number === text));
  assert(pairs.some(([, number]) => BigInt(number) > 2n ** 53n));
});

await check('Flutter: recents is an array whatever is asked, and nothing is null', async () => {
  for (const count of [0, -1, 1, 20]) {
    const items = JSON.parse(await text('/conversation/sync', { uid: me, msg_count: count }));
    assert(items.length > 0);
    const walk = (value) => {
      assert.notEqual(value, null);
      if (typeof value === 'object') Object.values(value).forEach(walk);
    };
    walk(items);
    for (const item of items) {
      assert(Array.isArray(item.recents));
      assert(item.recents.every((message) => typeof message.payload === 'string'));
    }
  }
});

await check('Android: last_client_msg_no is a text', async () => {
  const items = JSON.parse(await text('/conversation/sync', { uid: me, msg_count: 0 }));
  assert(items.every((item) => typeof item.last_client_msg_no === 'string' && item.last_client_msg_no !== ''));
});

await check('TangSengDaoDao: the version of the last element loses nothing', async () => {
  // The SDK uses that as its cursor, and drops conversations without messages.
  const held = new Map();
  let cursor = 0;
  const sync = async () => {
    const items = JSON.parse(await text('/conversation/sync', { uid: me, version: cursor, msg_count: 1 }));
    for (const item of items.filter(({ recents }) => recents.length > 0)) held.set(`${item.channel_id}:${item.channel_type}`, item);
    if (items.length > 0) cursor = items.at(-1).version;
  };
  const changes = [
    () => server.send(friend, group, 2, 'one more'),
    () => text('/conversations/setUnread', { uid: me, channel_id: friend, channel_type: 1, unread: 5 }),
    () => Promise.all([server.send(friend, me, 1, 'a'), server.send(friend, group, 2, 'b'), server.send(`${friend}-2`, me, 1, 'c')]),
  ];
  await sync();
  for (const change of changes) {
    await change();
    await sync();
    const full = JSON.parse(await text('/conversation/sync', { uid: me, version: 0, msg_count: 1 }));
    for (const item of full) {
      const mine = held.get(`${item.channel_id}:${item.channel_type}`);
      assert.deepEqual([mine?.unread, mine?.last_msg_seq], [item.unread, item.last_msg_seq], item.channel_id);
    }
  }
});
done('the SDK');
process.exit(0);
