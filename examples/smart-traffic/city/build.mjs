// Makes dist/city.wasm of src/: the scripts and their JavaScript engine in one component.
import { spawnSync } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { componentize } from '@bytecodealliance/componentize-js';

// Node.js names the file and the line of a mistake in the syntax; the compiler of the component does not.
for (const file of await readdir('src', { recursive: true })) {
  if (!file.endsWith('.js')) continue;
  const { status } = spawnSync(process.execPath, ['--check', join('src', file)], { stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}

const { component } = await componentize({
  sourcePath: 'src/city.js',
  witPath: '../wit',
  worldName: 'city',
});
await mkdir('dist', { recursive: true });
await writeFile('dist/city.wasm', component);
