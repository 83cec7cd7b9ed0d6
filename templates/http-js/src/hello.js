// The function: `GET /hello/NAME` greets by name, everything else is told how to ask.
import { greeting } from './greeting.js';

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

function answer(request) {
  const { pathname } = new URL(request.url);
  // `tombolo logs` shows it, with the request that it belongs to.
  console.log(`${request.method} ${pathname}`);
  const text = greeting(pathname);
  if (text === undefined) {
    return new Response('Try /hello/world\n', { status: 404 });
  }
  return new Response(text, { headers: { 'content-type': 'text/plain; charset=utf-8' } });
}
