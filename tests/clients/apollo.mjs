// Apollo Client: automatic persisted queries by GET, and a list that grows page by page.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { relayStylePagination } from '@apollo/client/utilities';

const uid = 'u02';
const url = `${process.env.RECENTS}/graphql`;
const sha256 = (text) => createHash('sha256').update(text).digest('hex');

// A client that records its requests and responses.
const start = () => {
  const sent = [];
  const http = new HttpLink({
    uri: url,
    fetch: async (address, options) => {
      const response = await fetch(address, options);
      sent.push({
        method: options.method,
        address: new URL(address),
        body: options.body && JSON.parse(options.body),
        answer: await response.clone().json(),
      });
      return response;
    },
  });
  const persisted = new PersistedQueryLink({ sha256, useGETForHashedQueries: true });
  const cache = new InMemoryCache({
    possibleTypes: { Node: ['Channel', 'Conversation', 'Message', 'UnreadSummary'] },
    typePolicies: { Query: { fields: { conversationList: relayStylePagination(['uid', 'filter']) } } },
  });
  return { sent, client: new ApolloClient({ link: ApolloLink.from([persisted, http]), cache }) };
};

// A unique name makes the query new to the server.
const name = `List${process.pid}x${Date.now()}`;
const List = gql`
  query ${name}($uid: ID!, $first: Int!, $after: String) {
    conversationList(uid: $uid, first: $first, after: $after) {
      edges { cursor node { id unread lastMessage { id content } } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
`;

const { sent, client } = start();
const first = await client.query({ query: List, variables: { uid, first: 3 } });
assert.equal(first.data.conversationList.edges.length, 3);
assert.equal(sent.length, 2);
const [asked, taught] = sent;
assert.equal(asked.method, 'GET');
assert.equal(asked.address.searchParams.has('query'), false);
const { persistedQuery } = JSON.parse(asked.address.searchParams.get('extensions'));
assert.equal(persistedQuery.version, 1);
assert.match(persistedQuery.sha256Hash, /^[0-9a-f]{64}$/);
assert.equal(asked.answer.errors[0].extensions.code, 'PERSISTED_QUERY_NOT_FOUND');
assert.equal(taught.method, 'POST');
assert.equal(sha256(taught.body.query), persistedQuery.sha256Hash);
assert.deepEqual(taught.body.extensions.persistedQuery, persistedQuery);
assert.equal(taught.answer.errors, undefined);

// The same query of another client is one GET with the hash.
const second = start();
const again = await second.client.query({ query: List, variables: { uid, first: 3 } });
assert.equal(second.sent.length, 1);
assert.equal(second.sent[0].method, 'GET');
assert.equal(second.sent[0].address.searchParams.has('query'), false);
assert.deepEqual(again.data, first.data);

// Two pages become one list.
const watched = client.watchQuery({ query: List, variables: { uid, first: 3 } });
const seen = watched.subscribe(() => {});
await watched.fetchMore({ variables: { after: first.data.conversationList.pageInfo.endCursor } });
const { edges } = client.readQuery({ query: List, variables: { uid, first: 3 } }).conversationList;
const ids = edges.map(({ node }) => node.id);
assert.equal(ids.length, 6);
assert.equal(new Set(ids).size, 6);
assert.deepEqual(ids.slice(0, 3), first.data.conversationList.edges.map(({ node }) => node.id));
seen.unsubscribe();
client.stop();
second.client.stop();

console.log('apollo: persisted queries go by GET, and pages join');
