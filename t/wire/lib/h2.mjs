// h2 - HTTP/2 by hand: frames as they are, also those that no client library would send.
import tls from 'node:tls';
import { waitFor, within } from './wait.mjs';

export const DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9;
export const END_STREAM = 1, ACK = 1, END_HEADERS = 4;

/** A frame's bytes. */
export function frame(type, flags, stream, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export function u32(...numbers) {
  const bytes = Buffer.alloc(4 * numbers.length);
  numbers.forEach((n, i) => bytes.writeUInt32BE(n, 4 * i));
  return bytes;
}

export function setting(id, value) {
  const bytes = Buffer.alloc(6);
  bytes.writeUInt16BE(id, 0);
  bytes.writeUInt32BE(value, 2);
  return bytes;
}

function literal(text) {
  const bytes = Buffer.from(text);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const rest = bytes.length - 127;
  return Buffer.concat([Buffer.from(rest < 128 ? [127, rest] : [127, (rest & 127) | 128, rest >> 7]), bytes]);
}

/** HPACK without a table: never indexed by either side. */
export function block(route, { method = 'GET', key, headers = {} } = {}) {
  const parts = [Buffer.from([method === 'GET' ? 0x82 : 0x83, 0x87, 0x04]), literal(route), Buffer.from([0x01]), literal('localhost')];
  const all = { ...headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  for (const [name, value] of Object.entries(all)) parts.push(Buffer.from([0x00]), literal(name), literal(value));
  return Buffer.concat(parts);
}

export const get = (stream, route, key) => frame(HEADERS, END_STREAM | END_HEADERS, stream, block(route, { key }));

export function post(stream, route, key, body) {
  const bytes = Buffer.from(JSON.stringify(body));
  const head = block(route, { method: 'POST', key, headers: { 'content-type': 'application/json' } });
  return Buffer.concat([frame(HEADERS, END_HEADERS, stream, head), frame(DATA, END_STREAM, stream, bytes)]);
}

/** A connection: the preface and SETTINGS are sent, what comes is in `frames` ({type, flags, stream, payload}). */
export class H2 {
  constructor(port, { settings = Buffer.alloc(0), on_frame = () => {} } = {}) {
    this.frames = [];
    this.is_closed = false;
    this.socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    this.socket.setNoDelay(true);
    let rest = Buffer.alloc(0);
    this.socket.on('data', (part) => {
      rest = Buffer.concat([rest, part]);
      while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
        const end = 9 + rest.readUIntBE(0, 3);
        const one = { type: rest[3], flags: rest[4], stream: rest.readUInt32BE(5), payload: rest.subarray(9, end) };
        this.frames.push(one);
        on_frame(one, this);
        rest = rest.subarray(end);
      }
    });
    this.socket.on('error', () => {}); // a reset is an end, too
    this.ended = new Promise((resolve) => {
      this.socket.on('close', () => {
        this.is_closed = true;
        resolve();
      });
    });
    this.opened = new Promise((resolve, reject) => {
      this.socket.on('secureConnect', resolve);
      this.socket.on('error', reject);
    });
    this.opened.catch(() => {});
    this.send(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(SETTINGS, 0, 0, settings));
  }

  send(...parts) {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(parts));
    return this;
  }

  /** The first such frame, waiting for it. */
  frame(type, stream, limit_ms = 10000, flags = 0) {
    return waitFor(() => {
      const found = this.frames.find((one) => one.type === type && one.stream === stream && (one.flags & flags) === flags);
      if (!found && this.is_closed) throw new Error(`closed without a frame ${type} of stream ${stream}`);
      return found;
    }, `frame ${type} of stream ${stream} among ${this.frames.map((one) => `${one.type}:${one.stream}`).join(' ').slice(-500)}`, limit_ms);
  }

  text(stream) {
    return Buffer.concat(this.frames.filter((one) => one.type === DATA && one.stream === stream).map((one) => one.payload)).toString();
  }

  end(limit_ms = 10000) {
    return within(this.ended, 'end of the connection', limit_ms);
  }

  close() {
    this.socket.destroy();
  }
}

export async function openH2(t, port, options) {
  const h2 = new H2(port, options);
  t?.after(() => h2.close());
  await within(h2.opened, 'TLS handshake');
  return h2;
}
