// The TypeScript of docs/GRAPHQL.md: every block is a module that compiles under --strict.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const path = process.env.DOCUMENT ?? join(here, '../../docs/GRAPHQL.md');
const blocks = [...readFileSync(path, 'utf8').matchAll(/^```ts\n(.*?)^```$/gms)].map(([, text]) => text);
assert.ok(blocks.length >= 3, `${path} has only ${blocks.length} blocks of TypeScript`);

// Beside node_modules, where the compiler looks for imports.
const folder = join(here, 'documents');
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder);
try {
  const names = blocks.map((text, number) => {
    const name = /^\/\/ (\S+\.ts)\n/.exec(text)?.[1];
    assert.ok(name, `block ${number + 1} does not begin with its name: // name.ts`);
    writeFileSync(join(folder, name), text);
    return name;
  });
  const options = ['--strict', '--noEmit', '--skipLibCheck', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler'];
  execFileSync(join(here, 'node_modules/.bin/tsc'), [...options, ...names], { cwd: folder, stdio: 'pipe' });
  console.log(`documents: ${names.join(', ')} compile under --strict`);
} catch (error) {
  throw error.stdout ? new Error(`tsc: ${error.stdout}${error.stderr}`) : error;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
