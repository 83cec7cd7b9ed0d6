// The pure part of function `city`: counts, repetitions, bounds, and the page they become.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { niceScale } from '../src/chart.js';
import { renderPage } from '../src/page.js';
import { CYCLES_MAX, QUARTERS_MAX, accept, emptyStatistics, report, total } from '../src/statistics.js';

const NOON = Date.parse('2024-04-15T12:00:00Z');

function aggregate(number, from = NOON, counts = {}) {
  const { arrivals = 10, green = 6 } = counts;
  const phases = { 2: [20, arrivals, green, 1, 1, 30000, 4000, 1500, 1, 0, 0, 9000] };
  return { number, from, to: from + 90_000, cycle: true, phases, detectors: { 4: 20 } };
}

test('aggregates of one quarter hour add up', () => {
  const statistics = emptyStatistics();
  accept(statistics, [aggregate(1), aggregate(2, NOON + 90_000)]);
  const [quarter] = report('1136', statistics).quarters;
  assert.equal(quarter.from, '2024-04-15T12:00:00');
  assert.equal(quarter.cycles, 2);
  assert.equal(quarter.phases[2].arrivals_on_green, 12);
  assert.equal(quarter.detectors[4], 40);
});

test('what comes twice counts once, and a hole is what was lost', () => {
  const statistics = emptyStatistics();
  accept(statistics, [aggregate(1)]);
  accept(statistics, [aggregate(1), aggregate(4)]);
  assert.equal(total(report('x', statistics).quarters)[2].arrivals, 20);
  assert.equal(statistics.lost, 2);
});

test('the memory is bounded', () => {
  const statistics = emptyStatistics();
  for (let index = 0; index < 200; index += 1) accept(statistics, [aggregate(index + 1, NOON + index * 900_000)]);
  assert.equal(Object.keys(statistics.quarters).length, QUARTERS_MAX);
  assert.equal(statistics.cycles.length, CYCLES_MAX);
});

test('the page shows each phase and takes nothing from elsewhere', () => {
  const statistics = emptyStatistics();
  accept(statistics, [aggregate(1)]);
  const page = renderPage([report('1136', statistics)]);
  assert.match(page, /Intersection 1136/);
  assert.match(page, /Phase 2/);
  assert.match(page, /60%/);
  assert.doesNotMatch(page, /https?:|<script|NaN|undefined|Infinity/);
});

test('a page without data says so, and a name is never markup', () => {
  assert.match(renderPage([]), /No aggregate has arrived yet/);
  const statistics = emptyStatistics();
  accept(statistics, [aggregate(1)]);
  assert.doesNotMatch(renderPage([report('<b>', statistics)]), /Intersection <b>/);
});

test('scales end on round numbers', () => {
  assert.deepEqual(niceScale(100).ticks, [0, 25, 50, 75, 100]);
  assert.equal(niceScale(173).most, 200);
});
