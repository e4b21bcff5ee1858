// The compilers of web teams: Relay's and graphql-codegen, against the schema in the repository.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const schema = process.env.SCHEMA ?? fileURLToPath(new URL('../../schema.graphql', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'recents-tools-'));
const bin = (name) => fileURLToPath(new URL(`node_modules/.bin/${name}`, import.meta.url));
const run = (name, ...args) => {
  try {
    execFileSync(bin(name), args, { cwd: folder, stdio: 'pipe' });
  } catch (error) {
    throw new Error(`${name}: ${error.stdout}${error.stderr}`);
  }
};
const read = (...path) => readFileSync(join(folder, ...path), 'utf8');

const listScreen = `
  query ListScreenQuery($uid: ID!) {
    ...ListScreen_list @arguments(uid: $uid, first: 50)
    unreadSummary(uid: $uid) { total conversations }
  }
`;
const fragment = `
  fragment ListScreen_list on Query
    @argumentDefinitions(uid: { type: "ID!" }, first: { type: "Int", defaultValue: 50 }, after: { type: "String" })
    @refetchable(queryName: "ListScreenPageQuery") {
    conversationList(uid: $uid, first: $first, after: $after) @connection(key: "ListScreen_conversationList") {
      edges { node { id ...Row_conversation } }
    }
  }
`;
const row = `
  fragment Row_conversation on Conversation @refetchable(queryName: "RowQuery") {
    channelId
    lastMsgSeq
    lastActivityAt
    unread
    lastMessage { payload content }
  }
`;
const nodeQuery = `
  query NodeQuery($id: ID!) {
    node(id: $id) { __typename id ... on Conversation { unread } ... on Message { content } }
  }
`;
const operation = `
  query ConversationList($uid: ID!, $first: Int!, $after: String) {
    conversationList(uid: $uid, first: $first, after: $after) {
      version
      nodes { id unread lastActivityAt lastMessage { payload content } }
      pageInfo { hasNextPage endCursor }
    }
  }
`;

try {
  cpSync(schema, join(folder, 'schema.graphql'));

  // Relay: a list that grows, a row that is fetched again by its ID, and every type with an ID.
  mkdirSync(join(folder, 'src'));
  const modules = { Node: [nodeQuery], ListScreen: [listScreen, fragment], Row: [row] };
  for (const [name, texts] of Object.entries(modules)) {
    writeFileSync(join(folder, 'src', `${name}.ts`), texts.map((text) => `graphql\`${text}\`;\n`).join(''));
  }
  const customScalarTypes = { UInt53: 'number', Base64: 'string', DateTime: 'string', JSON: 'unknown' };
  writeFileSync(
    join(folder, 'relay.config.json'),
    JSON.stringify({ src: './src', schema: './schema.graphql', language: 'typescript', customScalarTypes, eagerEsModules: true }),
  );
  run('relay-compiler', 'relay.config.json');
  const generated = (name) => read('src', '__generated__', `${name}.graphql.ts`);
  assert.match(generated('ListScreenQuery'), /export type ListScreenQuery\$data/);
  assert.match(generated('ListScreenPageQuery'), /export type ListScreenPageQuery\$variables/);
  assert.match(generated('ListScreenPageQuery'), /pageInfo \{/);
  assert.match(generated('ListScreen_list'), /"name": "__ListScreen_conversationList_connection"/);
  assert.match(generated('RowQuery'), /node\(id: \$id\)/);
  assert.match(generated('Row_conversation'), /readonly lastMsgSeq: number;/);
  assert.match(generated('Row_conversation'), /readonly content: unknown/);
  assert.match(generated('NodeQuery'), /export type NodeQuery\$data/);

  // graphql-codegen: the schema and one operation as types.
  mkdirSync(join(folder, 'operations'));
  writeFileSync(join(folder, 'operations', 'list.graphql'), operation);
  const plugin = (name) => createRequire(import.meta.url).resolve(`@graphql-codegen/${name}`);
  writeFileSync(
    join(folder, 'codegen.json'),
    JSON.stringify({
      schema: 'schema.graphql',
      documents: 'operations/*.graphql',
      generates: { 'schema.ts': { plugins: [plugin('typescript')] }, 'operations.ts': { plugins: [plugin('typescript-operations')] } },
      config: { scalars: customScalarTypes, strictScalars: true, useTypeImports: true },
    }),
  );
  run('graphql-codegen', '--config', 'codegen.json');
  const types = read('schema.ts');
  const operations = read('operations.ts');
  for (const [scalar, type] of Object.entries(customScalarTypes)) {
    assert.match(types, new RegExp(`${scalar}: \\{ input: ${type}; output: ${type}; \\}`));
  }
  for (const type of ['Conversation', 'ConversationConnection', 'ConversationSync', 'Message', 'UnreadSummary', 'SetUnreadInput']) {
    assert.match(types, new RegExp(`export type ${type} = `));
  }
  assert.match(types, /export type Conversation = Node & \{/);
  assert.match(types, /pinnedAt\?: Maybe<Scalars\['DateTime'\]\['output'\]>;/);
  assert.match(operations, /export type ConversationListQuery = /);
  assert.match(operations, /export type ConversationListQueryVariables = /);
  assert.match(operations, /version: number/);
  assert.match(operations, /lastActivityAt: string/);
  assert.match(operations, /payload: string, content: unknown/);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

console.log('tools: Relay and graphql-codegen compile against the schema');
