// Charts as SVG text: no library, no script, colours from the page's CSS variables.

const WIDTH = 440;
const HEIGHT = 190;
const LEFT = 38;
const RIGHT = 8;
const TOP = 14;
const BOTTOM = 24;
const INNER_WIDTH = WIDTH - LEFT - RIGHT;
const INNER_HEIGHT = HEIGHT - TOP - BOTTOM;

export function escapeText(text) {
  const names = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return String(text).replace(/[&<>"]/g, (character) => names[character]);
}

/** Columns of stacked parts. `columns`: [{label, note, parts: [{value, color, name}]}]. */
export function stackedColumns(title, columns, most) {
  const scale = niceScale(most ?? Math.max(1, ...columns.map((column) => sum(column.parts))));
  const step = INNER_WIDTH / Math.max(1, columns.length);
  const width = Math.min(34, step * 0.66);
  const marks = columns.map((column, index) => {
    const x = LEFT + step * (index + 0.5) - width / 2;
    let below = 0;
    const rectangles = column.parts.map(({ value, color, name }) => {
      const top = y(below + value, scale.most);
      const height = Math.max(0, y(below, scale.most) - top - (below > 0 ? 1.5 : 0));
      below += value;
      const tip = `<title>${escapeText(`${column.label} · ${name}: ${number(value)}`)}</title>`;
      return `<rect x="${fixed(x)}" y="${fixed(top)}" width="${fixed(width)}" height="${fixed(height)}" rx="2" fill="var(--${color})">${tip}</rect>`;
    });
    const note = column.note
      ? `<text class="note" x="${fixed(x + width / 2)}" y="${fixed(y(below, scale.most) - 4)}" text-anchor="middle">${escapeText(column.note)}</text>`
      : '';
    return rectangles.join('') + note;
  });
  const labels = columns.map(({ label }, index) => [LEFT + step * (index + 0.5), label]);
  return frame(title, scale, labels, marks.join(''));
}

/** Lines over common positions. `series`: [{name, color, values}], a value may be null. */
export function lines(title, labels, series, most, unit = '') {
  const values = series.flatMap((line) => line.values.filter((value) => value !== null));
  const scale = niceScale(most ?? Math.max(1, ...values));
  const step = INNER_WIDTH / Math.max(1, labels.length);
  const x = (index) => LEFT + step * (index + 0.5);
  const marks = series.map(({ name, color, values: points }) => {
    const known = points.map((value, index) => [index, value]).filter(([, value]) => value !== null);
    const path = known.map(([index, value], place) => `${place ? 'L' : 'M'}${fixed(x(index))} ${fixed(y(value, scale.most))}`);
    const dots = known.map(
      ([index, value]) =>
        `<circle cx="${fixed(x(index))}" cy="${fixed(y(value, scale.most))}" r="3.2" fill="var(--${color})" stroke="var(--card)" stroke-width="1.2"><title>${escapeText(`${labels[index]} · ${name}: ${number(value)}${unit}`)}</title></circle>`,
    );
    return `<path d="${path.join('')}" fill="none" stroke="var(--${color})" stroke-width="2" stroke-linejoin="round"/>${dots.join('')}`;
  });
  return frame(title, scale, labels.map((label, index) => [x(index), label]), marks.join(''), unit);
}

/** One thin bar for each value, for long series. `points`: [{label, value}]. */
export function sticks(title, points, color, most, unit = '') {
  const scale = niceScale(most);
  const step = INNER_WIDTH / Math.max(1, points.length);
  const marks = points.map(({ label, value }, index) => {
    const top = y(value, scale.most);
    return `<rect x="${fixed(LEFT + step * index)}" y="${fixed(top)}" width="${fixed(Math.max(0.8, step - 0.8))}" height="${fixed(y(0, scale.most) - top)}" fill="var(--${color})"><title>${escapeText(`${label}: ${number(value)}${unit}`)}</title></rect>`;
  });
  const labels = points.map(({ label }, index) => [LEFT + step * (index + 0.5), label.slice(0, 5)]);
  return frame(title, scale, labels, marks.join(''), unit);
}

/** A horizontal bar of shares, in CSS. `parts`: [{value, color, name}]. */
export function shareBar(parts, unit = '') {
  const all = sum(parts) || 1;
  const cells = parts
    .filter(({ value }) => value > 0)
    .map(({ value, color, name }) => {
      const share = (100 * value) / all;
      const text = share >= 11 ? `${number(value)}${unit}` : '';
      return `<span style="flex:${fixed(share)};background:var(--${color})" title="${escapeText(`${name}: ${number(value)}${unit}`)}">${text}</span>`;
    });
  return `<div class="bar">${cells.join('')}</div>`;
}

function frame(title, scale, labels, marks, unit = '') {
  const grid = scale.ticks.map((tick) => {
    const height = fixed(y(tick, scale.most));
    return `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${height}" y2="${height}" class="${tick ? 'grid' : 'axis'}"/><text class="tick" x="${LEFT - 6}" y="${height}" dy="0.32em" text-anchor="end">${number(tick)}${unit}</text>`;
  });
  const every = Math.ceil(labels.length / 8);
  const below = labels
    .filter((_, index) => index % every === 0)
    .map(([x, label]) => `<text class="tick" x="${fixed(x)}" y="${HEIGHT - 7}" text-anchor="middle">${escapeText(label)}</text>`);
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeText(title)}">${grid.join('')}${marks}${below.join('')}</svg>`;
}

/** A round number not below `most`, and the ticks up to it. */
export function niceScale(most) {
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const count = Math.ceil(most / step - 1e-9);
  return { most: step * count, ticks: Array.from({ length: count + 1 }, (_, index) => index * step) };
}

function y(value, most) {
  return TOP + INNER_HEIGHT * (1 - value / most);
}

function sum(parts) {
  return parts.reduce((total, { value }) => total + value, 0);
}

function number(value) {
  return String(Math.round(value * 10) / 10);
}

function fixed(value) {
  return value.toFixed(1);
}
