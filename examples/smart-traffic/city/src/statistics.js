// What the city remembers of a device: counts per quarter hour, and the greens of the latest cycles.

/** The order in which an aggregate lists a phase's counts; as in `signal`'s aggregate.rs. */
export const COUNTS = [
  'actuations',
  'arrivals',
  'arrivals_on_green',
  'greens',
  'splits',
  'green_ms',
  'yellow_ms',
  'clearance_ms',
  'gap_outs',
  'max_outs',
  'force_offs',
  'occupied_ms',
];

const QUARTER_MS = 15 * 60 * 1000;
/** A day of quarters, and about three hours of cycles; then the oldest go. */
export const QUARTERS_MAX = 96;
export const CYCLES_MAX = 120;

export function emptyStatistics() {
  return { version: 1, number: 0, lost: 0, quarters: {}, cycles: [] };
}

/** Adds the aggregates that are new: their numbers ascend, and a hole in them is what was lost on the way. */
export function accept(statistics, aggregates) {
  for (const aggregate of aggregates) {
    if (aggregate.number <= statistics.number) continue;
    statistics.lost += aggregate.number - statistics.number - 1;
    statistics.number = aggregate.number;
    add(statistics, aggregate);
  }
  drop(statistics);
}

function add(statistics, { from, to, cycle, phases, detectors }) {
  const begin = Math.floor(from / QUARTER_MS) * QUARTER_MS;
  const quarter = (statistics.quarters[begin] ??= { ms: 0, cycles: 0, phases: {}, detectors: {} });
  quarter.ms += to - from;
  quarter.cycles += cycle ? 1 : 0;
  for (const [phase, counts] of Object.entries(phases)) {
    const sums = (quarter.phases[phase] ??= COUNTS.map(() => 0));
    counts.forEach((count, index) => (sums[index] += count));
  }
  for (const [channel, actuations] of Object.entries(detectors)) {
    quarter.detectors[channel] = (quarter.detectors[channel] ?? 0) + actuations;
  }
  const green = COUNTS.indexOf('green_ms');
  const greens = Object.entries(phases).filter(([, counts]) => counts[green] > 0);
  statistics.cycles.push([to, Object.fromEntries(greens.map(([phase, counts]) => [phase, counts[green]]))]);
}

function drop(statistics) {
  const begins = Object.keys(statistics.quarters).sort((one, other) => one - other);
  for (const begin of begins.slice(0, -QUARTERS_MAX)) delete statistics.quarters[begin];
  statistics.cycles.splice(0, statistics.cycles.length - CYCLES_MAX);
}

/** The statistics with names instead of positions, and clock times as the controller had them. */
export function report(device, statistics) {
  const quarters = Object.entries(statistics.quarters)
    .sort(([one], [other]) => one - other)
    .map(([begin, quarter]) => ({
      from: clock(Number(begin)),
      seconds: quarter.ms / 1000,
      cycles: quarter.cycles,
      phases: Object.fromEntries(Object.entries(quarter.phases).map(([phase, sums]) => [phase, named(sums)])),
      detectors: quarter.detectors,
    }));
  const cycles = statistics.cycles.map(([to, greens]) => ({ to: clock(to), greens_ms: greens }));
  return { device, aggregates: statistics.number, lost: statistics.lost, quarters, cycles };
}

/** A quarter's phases, or several quarters', added up. */
export function total(quarters) {
  const phases = {};
  for (const quarter of quarters) {
    for (const [phase, counts] of Object.entries(quarter.phases)) {
      const sums = (phases[phase] ??= named(COUNTS.map(() => 0)));
      for (const name of COUNTS) sums[name] += counts[name];
    }
  }
  return phases;
}

function named(sums) {
  return Object.fromEntries(COUNTS.map((name, index) => [name, sums[index]]));
}

function clock(ms) {
  return new Date(ms).toISOString().slice(0, 19);
}
