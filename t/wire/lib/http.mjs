// http - requests as the tests need them: a fresh connection for each, so that any worker may get it.
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { createParser } from 'eventsource-parser';
import { within } from './wait.mjs';

function open(url, { method, headers = {}, key, body, socketPath, ca, localAddress } = {}) {
  const target = new URL(url);
  const is_json = body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body);
  const bytes = is_json ? JSON.stringify(body) : body;
  const all = { connection: 'close', ...headers };
  if (key) all.authorization ??= `Bearer ${key}`;
  if (is_json) all['content-type'] ??= 'application/json';
  if (bytes !== undefined) all['content-length'] ??= Buffer.byteLength(bytes);
  const request = (target.protocol === 'https:' ? https : http).request(target, {
    method: method ?? (bytes === undefined ? 'GET' : 'POST'), headers: all, agent: false, socketPath, ca, localAddress,
  });
  request.end(bytes);
  return request;
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.on('response', resolve);
    request.on('error', reject);
  });
}

/**
 * One request, the whole answer: {status, headers, text, json}; json is undefined when the body is none.
 * options: method, headers, key (Bearer), body (object: JSON; string, Buffer: as it is), limit_ms, socketPath, ca.
 */
export async function request(url, options = {}) {
  const req = open(url, options);
  const whole = (async () => {
    const res = await answer(req);
    const parts = [];
    for await (const part of res) parts.push(part);
    const text = Buffer.concat(parts).toString('utf8');
    let json;
    try {
      json = JSON.parse(text);
    } catch {
      // not JSON: json stays undefined
    }
    return { status: res.statusCode, headers: res.headers, text, json };
  })();
  try {
    return await within(whole, `answer to ${req.method} ${url}`, options.limit_ms ?? 15000);
  } finally {
    req.destroy();
  }
}

/**
 * Opens an event stream. {status, headers, comments[], local_port, [Symbol.asyncIterator] of {id, event, data}, close()};
 * data is parsed where it is JSON (options.raw: never). The iterator ends when the server ends the stream and throws when it is cut.
 * On a status other than 200 there are no events, and `text` and `json` hold the answer.
 */
export async function stream(url, options = {}) {
  const req = open(url, { ...options, headers: { accept: 'text/event-stream', ...options.headers } });
  const res = await within(answer(req), `answer to ${req.method} ${url}`, options.limit_ms ?? 15000);
  const self = {
    status: res.statusCode, headers: res.headers, comments: [], local_port: res.socket.localPort, close: () => req.destroy(),
  };
  if (res.statusCode !== 200) {
    const parts = [];
    for await (const part of res) parts.push(part);
    self.text = Buffer.concat(parts).toString('utf8');
    try {
      self.json = JSON.parse(self.text);
    } catch {
      // not JSON
    }
  }
  self[Symbol.asyncIterator] = async function* events() {
    if (res.statusCode !== 200) return;
    const ready = [];
    const parser = createParser({
      onEvent: ({ id, event, data }) => ready.push({ id, event, data: options.raw ? data : json_or_text(data) }),
      onComment: (comment) => self.comments.push(comment),
      onError: (error) => { throw error; },
    });
    res.setEncoding('utf8');
    for await (const part of res) {
      parser.feed(part);
      while (ready.length > 0) yield ready.shift();
    }
  };
  return self;
}

function json_or_text(data) {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}

/** All events of a stream until one that `is_last` accepts (or the end), within limit_ms. */
export async function collect(events, is_last = () => false, limit_ms = 15000) {
  const seen = [];
  const all = (async () => {
    for await (const event of events) {
      seen.push(event);
      if (is_last(event)) break;
    }
    return seen;
  })();
  try {
    return await within(all, 'end of the stream', limit_ms);
  } catch (e) {
    e.message += `; seen so far: ${seen.map((event) => event.event).join(' ') || 'nothing'}`;
    throw e;
  }
}

/**
 * Sends bytes as they are on a new TCP connection and returns all that comes until the server closes (or `until`,
 * a regex over the text so far, matches; or limit_ms pass: then an error). `pieces` are written one by one.
 */
export function raw(port, pieces, { host = '127.0.0.1', until, limit_ms = 15000, end = false } = {}) {
  const socket = net.connect({ port, host, noDelay: true });
  let text = '';
  const whole = new Promise((resolve, reject) => {
    socket.on('data', (part) => {
      text += part.toString('latin1');
      if (until?.test(text)) resolve(text);
    });
    socket.on('close', () => resolve(text));
    socket.on('error', (e) => (text !== '' ? resolve(text) : reject(e)));
    socket.on('connect', async () => {
      for (const piece of [pieces].flat()) {
        if (socket.destroyed) return;
        await new Promise((done) => { socket.write(piece, done); });
        await new Promise(setImmediate);
      }
      if (end) socket.end();
    });
  });
  return within(whole, `end of the raw answer (so far ${JSON.stringify(text.slice(0, 200))})`, limit_ms).finally(() => socket.destroy());
}
