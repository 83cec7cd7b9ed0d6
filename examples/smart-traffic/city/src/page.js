// The report page: one section for each device, readable on a phone, by day and by night, with nothing from elsewhere.
import { escapeText, lines, shareBar, stackedColumns, sticks } from './chart.js';
import { STYLE } from './style.js';
import { total } from './statistics.js';

const COLORS = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'];

export function renderPage(reports) {
  const sections = reports.filter(({ quarters }) => quarters.length > 0).map(section);
  const body = sections.length > 0 ? sections.join('') : '<p class="empty">No aggregate has arrived yet.</p>';
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Signal report</title><style>${STYLE}</style></head>
<body><main>${body}</main></body></html>
`;
}

function section(report) {
  const phases = Object.entries(total(report.quarters)).map(([phase, counts], index) => ({
    phase,
    counts,
    color: COLORS[index % COLORS.length],
  }));
  const times = report.quarters.map(({ from }) => from.slice(11, 16));
  return [
    heading(report),
    tiles(report, phases),
    volumes(report, phases, times),
    `<div class="grid">${shares(report, phases, times)}${occupancy(report, phases, times)}${splits(phases)}${endings(phases)}</div>`,
    greens(report, phases),
    table(report, phases),
  ].join('');
}

function heading({ device, quarters }) {
  const first = quarters[0];
  const last = quarters.at(-1);
  const end = new Date(Date.parse(`${last.from}Z`) + last.seconds * 1000).toISOString().slice(11, 16);
  return `<header><h1>Intersection ${escapeText(device)}</h1><p>${first.from.slice(0, 10)}, ${first.from.slice(11, 16)} to ${end}</p></header>`;
}

function tiles({ quarters, aggregates, lost }, phases) {
  const all = (name) => phases.reduce((sum, { counts }) => sum + counts[name], 0);
  const cycles = quarters.reduce((sum, quarter) => sum + quarter.cycles, 0);
  const seconds = quarters.reduce((sum, quarter) => sum + quarter.seconds, 0);
  const told = phases.reduce((sum, { counts }) => sum + ended(counts), 0);
  return `<div class="tiles">${[
    ['arrivals', grouped(all('arrivals')), 'at the advance detectors'],
    ['on green', percent(all('arrivals_on_green'), all('arrivals')), 'of all arrivals'],
    ['cycles', cycles, cycles > 0 ? `${Math.round(seconds / cycles)} s each on average` : ''],
    ['gap out', percent(all('gap_outs'), told), 'of the ends that were told: no more traffic'],
    ['aggregates', aggregates, lost > 0 ? `${lost} lost on the way` : 'none lost on the way'],
  ]
    .map(([name, value, note]) => `<div class="tile"><span>${name}</span><b>${value}</b><small>${note}</small></div>`)
    .join('')}</div>`;
}

/** Arrivals on green over the other arrivals, per quarter hour, for each phase on one common scale. */
function volumes({ quarters }, phases, times) {
  const seen = phases.filter(({ counts }) => counts.arrivals > 0);
  const most = Math.max(1, ...quarters.flatMap((quarter) => seen.map(({ phase }) => quarter.phases[phase]?.arrivals ?? 0)));
  const charts = seen.map(({ phase }) => {
    const columns = quarters.map((quarter, index) => {
      const { arrivals = 0, arrivals_on_green: green = 0 } = quarter.phases[phase] ?? {};
      return {
        label: times[index],
        note: arrivals > 0 ? percent(green, arrivals) : '',
        parts: [
          { value: green, color: 'green', name: 'on green' },
          { value: arrivals - green, color: 'rest', name: 'on yellow or red' },
        ],
      };
    });
    return card(`Phase ${phase}`, stackedColumns(`Arrivals of phase ${phase} per quarter hour`, columns, most));
  });
  const key = legend([['green', 'on green'], ['rest', 'on yellow or red']]);
  return `<h2>Arrivals per quarter hour ${key}</h2><div class="grid">${charts.join('')}</div>`;
}

function shares({ quarters }, phases, times) {
  const seen = phases.filter(({ counts }) => counts.arrivals > 0);
  const series = seen.map(({ phase, color }) => ({
    name: `phase ${phase}`,
    color,
    values: quarters.map(({ phases: all }) => ratio(all[phase]?.arrivals_on_green, all[phase]?.arrivals)),
  }));
  const key = legend(seen.map(({ phase, color }) => [color, `phase ${phase}`]));
  return card('Arrivals on green', lines('Share of arrivals on green', times, series, 100, '%'), key);
}

function occupancy({ quarters }, phases, times) {
  const seen = phases.filter(({ counts }) => counts.occupied_ms > 0);
  const series = seen.map(({ phase, color }) => ({
    name: `phase ${phase}`,
    color,
    values: quarters.map(({ phases: all, seconds }) => ratio((all[phase]?.occupied_ms ?? 0) / 1000, seconds)),
  }));
  const key = legend(seen.map(({ phase, color }) => [color, `phase ${phase}`]));
  return card('Stop bar occupied', lines('Share of time with a vehicle at the stop bar', times, series, 100, '%'), key);
}

function splits(phases) {
  const rows = phases
    .filter(({ counts }) => counts.splits > 0)
    .map(({ phase, counts }) => {
      const mean = (name) => counts[name] / counts.splits / 1000;
      return `<div class="row"><span>Phase ${phase}</span>${shareBar(
        [
          { value: mean('green_ms'), color: 'green', name: 'green' },
          { value: mean('yellow_ms'), color: 'yellow', name: 'yellow' },
          { value: mean('clearance_ms'), color: 'red', name: 'red clearance' },
        ],
        ' s',
      )}</div>`;
    });
  const key = legend([['green', 'green'], ['yellow', 'yellow'], ['red', 'red clearance']]);
  return card('Average split', rows.join(''), key);
}

function endings(phases) {
  const rows = phases.map(
    ({ phase, counts }) =>
      `<div class="row"><span>Phase ${phase}</span>${shareBar([
        { value: counts.gap_outs, color: 'one', name: 'gap out' },
        { value: counts.force_offs, color: 'three', name: 'force off' },
        { value: counts.max_outs, color: 'red', name: 'max out' },
        { value: Math.max(0, counts.greens - ended(counts)), color: 'rest', name: 'not told' },
      ])}</div>`,
  );
  const key = legend([['one', 'gap out'], ['three', 'force off'], ['red', 'max out'], ['rest', 'not told']]);
  return card('How greens ended', rows.join(''), key);
}

function ended({ gap_outs: gap, force_offs: force, max_outs: most }) {
  return gap + force + most;
}

function greens({ cycles }, phases) {
  const most = Math.max(1, ...cycles.flatMap(({ greens_ms: all }) => Object.values(all))) / 1000;
  const charts = phases.map(({ phase, color }) => {
    const points = cycles
      .filter(({ greens_ms: all }) => all[phase] > 0)
      .map(({ to, greens_ms: all }) => ({ label: to.slice(11), value: all[phase] / 1000 }));
    return card(`Phase ${phase}`, sticks(`Green of phase ${phase} in each cycle`, points, color, most, ' s'));
  });
  return `<h2>Green in each of the last cycles</h2><div class="grid">${charts.join('')}</div>`;
}

function table({ quarters }, phases) {
  const columns = [
    ['actuations', 'actuations'],
    ['arrivals', 'arrivals'],
    ['arrivals_on_green', 'on green'],
    ['gap_outs', 'gap out'],
    ['force_offs', 'force off'],
    ['max_outs', 'max out'],
  ];
  const rows = quarters.flatMap(({ from, phases: all }) =>
    phases
      .filter(({ phase }) => all[phase])
      .map(({ phase }) => `<tr><td>${from.slice(11, 16)}</td><td>${phase}</td>${columns.map(([name]) => `<td>${all[phase][name]}</td>`).join('')}</tr>`),
  );
  const head = ['time', 'phase', ...columns.map(([, title]) => title)].map((title) => `<th>${title}</th>`).join('');
  return `<details><summary>All numbers</summary><div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>${rows.join('')}</tbody></table></div></details>`;
}

function card(title, content, key = '') {
  return `<section class="card"><h3>${title} ${key}</h3>${content}</section>`;
}

function legend(entries) {
  return `<span class="key">${entries.map(([color, name]) => `<b><i style="background:var(--${color})"></i>${name}</b>`).join(' ')}</span>`;
}

/** Digits in groups of three; the engine has no locales. */
function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ',');
}

function ratio(part = 0, whole = 0) {
  return whole > 0 ? (100 * part) / whole : null;
}

function percent(part, whole) {
  return whole > 0 ? `${Math.round((100 * part) / whole)}%` : '–';
}
