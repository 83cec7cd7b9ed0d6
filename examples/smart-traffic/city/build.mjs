// Makes dist/city.wasm of src/: the scripts and their JavaScript engine in one component.
import { mkdir, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'src/city.js',
  witPath: '../wit',
  worldName: 'city',
});
await mkdir('dist', { recursive: true });
await writeFile('dist/city.wasm', component);
