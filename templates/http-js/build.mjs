// Makes the component dist/hello.wasm of src/hello.js: the script, its JavaScript engine and the
// interface in wit/, in one file.
import { mkdir, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'src/hello.js',
  witPath: 'wit',
  worldName: 'fetch',
});
await mkdir('dist', { recursive: true });
await writeFile('dist/hello.wasm', component);
