// urql with Graphcache: one object by its id, whatever query brought it, and paging.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Client, fetchExchange, gql } from '@urql/core';
import { cacheExchange } from '@urql/exchange-graphcache';
import { relayPagination } from '@urql/exchange-graphcache/extras';
import { buildSchema, introspectionFromSchema } from 'graphql';

const uid = 'u02';
const url = `${process.env.RECENTS}/graphql`;
const path = process.env.SCHEMA ?? fileURLToPath(new URL('../../schema.graphql', import.meta.url));
const schema = introspectionFromSchema(buildSchema(readFileSync(path, 'utf8')));

const whole = () => null;
const cache = cacheExchange({
  schema,
  // Objects without an ID are embedded in their parent.
  keys: {
    ConversationConnection: whole,
    ConversationEdge: whole,
    ConversationSync: whole,
    MessageConnection: whole,
    MessageEdge: whole,
    MessageHeader: whole,
    PageInfo: whole,
    ChannelTypeSummary: whole,
  },
  resolvers: { Query: { conversationList: relayPagination() } },
});
// Number of requests sent.
let requests = 0;
const client = new Client({
  url,
  preferGetMethod: false,
  exchanges: [cache, fetchExchange],
  fetch: (...request) => {
    requests += 1;
    return fetch(...request);
  },
});

const List = gql`
  query List($uid: ID!, $first: Int!, $after: String) {
    conversationList(uid: $uid, first: $first, after: $after) {
      totalCount
      edges { cursor node { id channelId channelType unread lastMessage { id fromUid content } } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
`;
const One = gql`
  query One($uid: ID!, $channel: ChannelInput!) {
    conversation(uid: $uid, channel: $channel) { id unread }
  }
`;
const SetUnread = gql`
  mutation SetUnread($input: SetUnreadInput!) {
    setUnread(input: $input) { conversation { id unread } }
  }
`;
// Returns the response to a query, which must have no error.
const ask = async (document, variables, requestPolicy) => {
  const result = await client.query(document, variables, requestPolicy && { requestPolicy }).toPromise();
  assert.ifError(result.error);
  return result.data;
};

// Two pages become one list.
const first = (await ask(List, { uid, first: 3 })).conversationList;
assert.equal(first.edges.length, 3);
assert.equal(first.pageInfo.hasNextPage, true);
const after = first.pageInfo.endCursor;
const both = (await ask(List, { uid, first: 3, after })).conversationList;
const ids = both.edges.map(({ node }) => node.id);
assert.equal(ids.length, 6);
assert.equal(new Set(ids).size, 6);
assert.deepEqual(ids.slice(0, 3), first.edges.map(({ node }) => node.id));

// The result of a mutation updates the list in the cache.
const { id, channelId, channelType, unread } = first.edges[0].node;
const channel = { channelId, channelType };
const one = (await ask(One, { uid, channel })).conversation;
assert.equal(one.id, id);
assert.equal(one.unread, unread);
const wanted = unread === 1 ? 2 : 1;
const changed = await client.mutation(SetUnread, { input: { uid, channel, unread: wanted } }).toPromise();
assert.ifError(changed.error);
const before = requests;
const cached = (await ask(List, { uid, first: 3 }, 'cache-only')).conversationList;
assert.equal(cached.edges.find(({ node }) => node.id === id).node.unread, wanted);
assert.equal((await ask(One, { uid, channel }, 'cache-only')).conversation.unread, wanted);
assert.equal(requests, before);

console.log('urql: the list shows what a mutation returned, and pages join');
