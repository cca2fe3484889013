// browser - a real one, headless, driven over its DevTools protocol; each page has an origin of its own.
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import WebSocket from 'ws';
import { Child } from './process.mjs';
import { within } from './wait.mjs';

/** The program, or undefined: then tests of it are skipped. */
export const browser_path = ['chromium-headless-shell', 'chromium', 'google-chrome']
  .flatMap((name) => (process.env.PATH ?? '').split(':').map((dir) => path.join(dir, name))).find((file) => fs.existsSync(file));

/** What runs in the page: sockets by name, their frames, waits. */
const page_script = `
globalThis.sockets = {};
globalThis.until = async (what, fn) => {
  for (const end = Date.now() + 30000; ;) {
    const value = fn();
    if (value) return value;
    if (Date.now() > end) throw new Error('no ' + what);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
globalThis.connect = (name, url, protocols) => new Promise((resolve) => {
  const ws = new WebSocket(url, protocols);
  const all = sockets[name] = { ws, frames: [], closed: null, errors: 0 };
  ws.onmessage = ({ data }) => all.frames.push(JSON.parse(data));
  ws.onerror = () => all.errors++;
  ws.onclose = ({ code, reason, wasClean }) => { all.closed = { code, reason, wasClean }; resolve({ opened: false, ...all.closed }); };
  ws.onopen = () => resolve({ opened: true, protocol: ws.protocol, extensions: ws.extensions });
});
globalThis.say = (name, message) => sockets[name].ws.send(JSON.stringify(message));
`;

/** new Function's text of an arrow function, called in the page with these arguments. */
const call_text = (fn, args) => `(${fn})(...${JSON.stringify(args)})`;

class Page {
  constructor(browser, session) {
    this.browser = browser;
    this.session = session;
  }

  /** Runs fn there, with arguments and a value that are JSON; a promise is waited for. */
  async run(fn, ...args) {
    const { result, exceptionDetails } = await this.browser.send('Runtime.evaluate',
      { expression: call_text(fn, args), awaitPromise: true, returnByValue: true }, this.session);
    if (exceptionDetails) throw new Error(`in the page: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }
}

class Browser extends Child {
  constructor(dir) {
    super(browser_path, ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--ignore-certificate-errors', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-port=0', `--user-data-dir=${dir}`, 'about:blank'],
    { env: { HOME: dir } });
    this.dir = dir;
    this.count = 0;
    this.waiting = new Map();
  }

  async connect() {
    const [, url] = await this.line(/DevTools listening on (ws:\S+)/, 30000);
    this.tools = new WebSocket(url, { perMessageDeflate: false });
    this.tools.on('message', (bytes) => {
      const { id, result, error } = JSON.parse(bytes);
      const waiting = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result);
    });
    await within(new Promise((resolve, reject) => this.tools.on('open', resolve).on('error', reject)), 'DevTools');
  }

  async send(method, params = {}, sessionId = undefined) {
    const id = ++this.count;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.tools.send(JSON.stringify({ id, method, params, sessionId }));
    return within(answer, `answer to ${method}`, 20000);
  }

  /** A page at this address. */
  async open(url) {
    const { targetId } = await this.send('Target.createTarget', { url });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId);
    const loaded = async () => { while (!await page.run(() => document.readyState === 'complete' && location.href !== 'about:blank')); };
    await within(loaded(), `page ${url}`);
    await this.send('Runtime.evaluate', { expression: page_script }, sessionId);
    return page;
  }

  async stop() {
    // By itself it ends its processes, too, which hold our pipes.
    await Promise.race([this.send('Browser.close').catch(() => {}), this.ended]);
    this.tools?.terminate();
    await super.stop('SIGTERM');
    fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

export async function startBrowser() {
  const browser = new Browser(fs.mkdtempSync(path.join(os.tmpdir(), 'parley-browser-')));
  try {
    await browser.connect();
  } catch (e) {
    await browser.stop();
    throw e;
  }
  return browser;
}

/** A web site with one empty page; its origin. */
export async function startSite(t) {
  const site = http.createServer((request, response) => response.setHeader('content-type', 'text/html').end('<!doctype html><title>site</title>'));
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  t.after(() => site.closeAllConnections());
  t.after(() => site.close());
  return `http://127.0.0.1:${site.address().port}`;
}
