// upstream - a provider made of a function, for answers that mock_llm would not give: bytes as the test wants them.
import http from 'node:http';

/**
 * respond(request, response) is called with request.text (the body as it came). Returns {url, requests[], close()}; url ends in
 * /v1. Each request remembers how it ended: request.is_aborted.
 */
export async function startUpstream(t, respond) {
  const upstream = { requests: [], respond };
  const server = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    request.text = Buffer.concat(parts).toString('utf8');
    upstream.requests.push(request);
    response.on('close', () => { request.is_aborted = !response.writableFinished; });
    response.socket.setNoDelay(true);
    upstream.respond(request, response);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  upstream.url = `http://127.0.0.1:${server.address().port}/v1`;
  upstream.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => { server.close(resolve); });
  };
  t?.after(() => upstream.close());
  return upstream;
}

/** An event stream in pieces, each a write of its own once the one before has left. */
export async function respondStream(response, pieces, { end = true } = {}) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (const piece of pieces) {
    await new Promise((done) => { response.write(piece, done); });
    await new Promise(setImmediate);
  }
  if (end) response.end();
}
