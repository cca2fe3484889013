// receiver - an endpoint for webhooks that behaves as a test says, and keeps a ledger of all that came.
//
//   const receiver = await startReceiver(t, { secret });      receiver.url, receiver.got[] {id, headers, body, json, signature, at}
//   receiver.respond = (request, response, entry) => {..}     default: 200 "ok"
//   receiver.bad = how.reset                                  one of the ways to fail, instead
//
// Every signature is verified by npm's standardwebhooks when there is a secret; entry.is_signed says how it went.
import http from 'node:http';
import https from 'node:https';
import { Webhook } from 'standardwebhooks';

/** Ways to fail: each is a respond function. */
export const how = {
  status: (code, headers = {}) => (request, response) => { response.writeHead(code, headers).end(`status ${code}`); },
  reset: (request) => request.socket.resetAndDestroy(),
  hang: () => {},
  /** A byte of the head at a time. */
  drip: (request) => {
    const text = 'HTTP/1.1 200 OK\r\nx-slow: '.padEnd(100000, 'a');
    let at = 0;
    const timer = setInterval(() => (request.socket.destroyed ? clearInterval(timer) : request.socket.write(text[at++])), 20);
    timer.unref();
  },
  /** An answer without an end. */
  flood: (code) => (request, response) => {
    response.writeHead(code);
    const part = Buffer.alloc(64 << 10, 'x');
    const more = () => { while (!response.destroyed && response.write(part)); };
    response.on('drain', more);
    response.on('error', () => {});
    more();
  },
  /** Says 200 and breaks off. */
  cut: (request, response) => {
    response.writeHead(200, { 'content-length': 1000 });
    response.write('half', () => request.socket.destroy());
  },
  garbage: (request) => request.socket.end('this is not HTTP\r\n\r\n'),
};

export async function startReceiver(t, { secret, secrets = [secret], tls, port = 0 } = {}) {
  const receiver = { got: [], connections: 0, now: 0, most: 0, respond: (request, response) => response.end('ok') };
  const verifiers = secrets.filter(Boolean).map((one) => (one.startsWith('whsec_') ? new Webhook(one) : new Webhook(one, { format: 'raw' })));
  const on_request = async (request, response) => {
    const parts = [];
    receiver.now++;
    receiver.most = Math.max(receiver.most, receiver.now);
    response.on('close', () => { receiver.now--; });
    try {
      for await (const part of request) parts.push(part);
    } catch {
      return;
    }
    const body = Buffer.concat(parts).toString('utf8');
    const entry = { id: request.headers['webhook-id'], headers: request.headers, body, json: JSON.parse(body), at: Date.now(), socket: request.socket };
    entry.is_signed = verifiers.length > 0 && verifiers.every((one) => {
      try {
        one.verify(body, request.headers);
        return true;
      } catch {
        return false;
      }
    });
    receiver.got.push(entry);
    receiver.respond(request, response, entry);
  };
  const server = tls ? https.createServer(tls, on_request) : http.createServer({ keepAliveTimeout: 60000 }, on_request);
  server.on('connection', () => { receiver.connections++; });
  server.on('error', () => {});
  server.on('tlsClientError', () => {});
  const listen = (at) => new Promise((resolve) => { server.listen(at, '127.0.0.1', resolve); });
  await listen(port);
  receiver.port = server.address().port;
  receiver.url = `${tls ? 'https' : 'http'}://127.0.0.1:${receiver.port}/hook`;
  receiver.server = server;
  receiver.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => { server.close(resolve); });
  };
  receiver.again = () => listen(receiver.port);
  receiver.ids = () => receiver.got.map(({ id }) => id);
  t?.after(() => receiver.close());
  return receiver;
}
