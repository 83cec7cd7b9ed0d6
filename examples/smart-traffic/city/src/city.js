// Function `city`: the wasi shell around the statistics; takes aggregates, serves the report.
import { open } from 'wasi:keyvalue/store@0.2.0-draft2';
import { Cas, swap } from 'wasi:keyvalue/atomics@0.2.0-draft2';
import { accept, emptyStatistics, report } from './statistics.js';
import { renderPage } from './page.js';

const STORE = 'city';
const DEVICE = /^[A-Za-z0-9-]{1,64}$/;
const ATTEMPTS = 8;
const BODY_CHARACTERS_MAX = 1 << 20;

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  if (request.method === 'POST' && pathname === '/aggregates') return take(await request.text());
  if (request.method === 'GET' && pathname === '/report.json') return json(200, { devices: reports() });
  if (request.method === 'GET' && pathname === '/report') {
    return new Response(renderPage(reports()), {
      headers: {
        'content-type': 'text/html; charset=utf-8',
        'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
      },
    });
  }
  return problem(404, 'there are POST /aggregates, GET /report and GET /report.json');
}

/** Adds a delivery to its device's statistics. A delivery that comes twice is added once. */
function take(text) {
  const delivery = text.length <= BODY_CHARACTERS_MAX ? parse(text) : undefined;
  if (!DEVICE.test(delivery?.device) || !Array.isArray(delivery.aggregates)) {
    return problem(400, 'not a delivery of aggregates');
  }
  const key = delivery.device;
  let handle = Cas.new(open(STORE), key);
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const statistics = decode(handle.current()) ?? emptyStatistics();
    accept(statistics, delivery.aggregates);
    try {
      swap(handle, new TextEncoder().encode(JSON.stringify(statistics)));
      return json(200, { number: statistics.number });
    } catch (error) {
      if (error.payload?.tag !== 'cas-failed') throw error;
      handle = error.payload.val;
    }
  }
  return problem(503, 'other deliveries of this device keep coming first');
}

/** The reports of all devices, by name. */
function reports() {
  const bucket = open(STORE);
  const keys = [];
  let cursor;
  do {
    const page = bucket.listKeys(cursor);
    keys.push(...page.keys);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return keys.sort().map((device) => report(device, decode(bucket.get(device)) ?? emptyStatistics()));
}

function decode(bytes) {
  return bytes && JSON.parse(new TextDecoder().decode(bytes));
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function json(status, value) {
  return new Response(JSON.stringify(value), { status, headers: { 'content-type': 'application/json' } });
}

function problem(status, detail) {
  const body = JSON.stringify({ status, detail });
  return new Response(body, { status, headers: { 'content-type': 'application/problem+json' } });
}
