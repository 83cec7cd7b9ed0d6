// The function: `GET /hello/NAME` greets by name, everything else is told how to ask.
import { greeting } from './greeting.js';

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

function answer(request) {
  const text = greeting(new URL(request.url).pathname);
  if (text === undefined) {
    return new Response('Try /hello/world\n', { status: 404 });
  }
  return new Response(text, { headers: { 'content-type': 'text/plain; charset=utf-8' } });
}
