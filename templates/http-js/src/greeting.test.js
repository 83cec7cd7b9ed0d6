import assert from 'node:assert/strict';
import { test } from 'node:test';
import { greeting } from './greeting.js';

test('greets by name and nobody else', () => {
  assert.equal(greeting('/hello/world'), 'Hello, world!\n');
  assert.equal(greeting('/hello/'), undefined);
  assert.equal(greeting('/'), undefined);
});
