// Makes a component of app.js: node build.mjs WIT-FOLDER OUTPUT
import { componentize } from '@bytecodealliance/componentize-js';
import { readFile, writeFile } from 'node:fs/promises';

const [wit, output] = process.argv.slice(2);
if (!output) {
  console.error('usage: node build.mjs WIT-FOLDER OUTPUT.wasm');
  process.exit(2);
}
const source = await readFile(new URL('app.js', import.meta.url), 'utf8');
// Without `http`, the engine imports no way to send requests: a service that fetches asks for [[net.http]] and leaves it on.
const { component } = await componentize(source, { witPath: wit, worldName: 'service', disableFeatures: ['http'] });
await writeFile(output, component);
