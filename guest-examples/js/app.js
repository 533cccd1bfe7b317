// An HTTP service: answers GET /greet-js/NAME with a greeting.
addEventListener('fetch', (event) => event.respondWith(greet(event.request)));

async function greet(request) {
  let name;
  try {
    name = decodeURIComponent(new URL(request.url).pathname.split('/').filter(Boolean)[1] ?? 'world');
  } catch {
    return new Response('no such name\n', { status: 400 });
  }
  console.log(`${request.method} for one of ${name.length} letters`);
  return new Response(`${JSON.stringify({ language: 'JavaScript', hello: name })}\n`, {
    headers: { 'content-type': 'application/json' },
  });
}
