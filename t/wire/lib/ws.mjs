// ws - a client of /ws/chat: npm ws, with all frames that came, and waits for those that will.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { keys } from './server.mjs';
import { waitFor, within } from './wait.mjs';

export class Chat {
  /** options: key (null: none), protocols, query, url, and those of ws (headers, ca, autoPong ..). */
  constructor(server, { key = keys.client, protocols = [], query = '', url, headers = {}, ...options } = {}) {
    this.frames = [];
    this.closed = null; // {code, reason}
    this.pings = 0;
    this.count = 0;
    const all = { ...headers };
    if (key) all.authorization ??= `Bearer ${key}`;
    this.ws = new WebSocket(`${url ?? server.url.replace(/^http/, 'ws')}/ws/chat${query}`, protocols, { headers: all, perMessageDeflate: false, ...options });
    this.ws.on('message', (bytes) => this.frames.push(JSON.parse(bytes)));
    this.ws.on('ping', () => this.pings++);
    this.ws.on('close', (code, reason) => { this.closed = { code, reason: String(reason) }; });
    this.opened = new Promise((resolve, reject) => {
      this.ws.on('open', resolve);
      this.ws.on('unexpected-response', (request, response) => {
        const parts = [];
        response.on('data', (part) => parts.push(part));
        response.on('end', () => {
          const text = Buffer.concat(parts).toString();
          let json;
          try { json = JSON.parse(text); } catch { /* not JSON */ }
          reject(Object.assign(new Error(`status ${response.statusCode}: ${text}`), { status: response.statusCode, headers: response.headers, json }));
        });
      });
      this.ws.on('error', reject);
    });
    this.opened.catch(() => {});
  }

  /** The client's port: which worker has it is in /proc. */
  get local_port() { return this.ws._socket?.localPort; }

  send(message) {
    this.ws.send(typeof message === 'string' || Buffer.isBuffer(message) ? message : JSON.stringify(message));
    return this;
  }

  /** Sends a chat; its request_id. */
  chat(payload, request_id = `req-${++this.count}`) {
    this.send({ action: 'chat', request_id, payload: typeof payload === 'string' ? { text: payload } : payload });
    return request_id;
  }

  /** The first frame from `from` on that matches: a function, or members that it must have. */
  frame(match, what = JSON.stringify(match), limit_ms = 10000, from = 0) {
    const matches = typeof match === 'function' ? match
      : (frame) => Object.entries(match).every(([name, value]) => frame[name] === value);
    return waitFor(() => {
      const found = this.frames.slice(from).find(matches);
      if (!found && this.closed) throw new Error(`closed ${JSON.stringify(this.closed)} without a frame ${what}: ${JSON.stringify(this.frames).slice(-2000)}`);
      return found;
    }, `frame ${what} among ${JSON.stringify(this.frames).slice(0, 2000)}`, limit_ms);
  }

  /** All frames of the request to its end. */
  async answer(request_id, limit_ms = 15000) {
    await this.frame((frame) => frame.request_id === request_id && is_last(frame), `end of ${request_id}`, limit_ms);
    return this.frames.filter((frame) => frame.request_id === request_id);
  }

  /** All frames of the turn to its end. */
  async turn(turn_id, limit_ms = 15000) {
    await this.frame((frame) => frame.turn_id === turn_id && is_last(frame), `end of ${turn_id}`, limit_ms);
    return this.frames.filter((frame) => frame.turn_id === turn_id && frame.seq !== undefined);
  }

  end(limit_ms = 10000) {
    return waitFor(() => this.closed, 'end of the socket', limit_ms);
  }

  /** By the closing handshake. */
  async close() {
    this.ws.close(1000);
    return this.end();
  }

  /** Without a word. */
  cut() {
    this.ws.terminate();
  }
}

export const is_last = ({ status }) => status === 'complete' || status === 'error';

export async function openChat(t, server, options) {
  const chat = new Chat(server, options);
  t?.after(() => chat.cut());
  await within(chat.opened, 'open WebSocket');
  return chat;
}

/** The refusal of an opening: {status, headers, json}. */
export async function refused(server, options) {
  const chat = new Chat(server, options);
  const error = await within(chat.opened.then(() => { chat.cut(); return null; }, (e) => e), 'refusal');
  assert.ok(error?.status, `it was opened, or failed otherwise: ${error}`);
  return error;
}

/** What a client has by these frames: a snapshot takes the place of what came before. */
export const text_of = (frames) => frames.reduce((text, { chunk }) => {
  if (chunk?.type === 'snapshot') return chunk.data;
  return chunk?.type === 'text' ? text + chunk.data : text;
}, '');
