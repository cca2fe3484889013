// The protocol's own conformance suite against our server side, in both eras: a parleyd of 4 workers in front of fixtures that the
// official SDK serves, while another tool server behind it is killed again and again. conformance_expected.yaml says what may fail.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { Child } from './lib/process.mjs';
import { ready, sdk } from './lib/programs.mjs';
import { startServer } from './lib/server.mjs';

const here = import.meta.dirname;
const suite = path.join(here, 'node_modules/@modelcontextprotocol/conformance/dist/index.js');

/** Kills the program that is behind us, as often as it is started again, until it is told to stop. */
function killing(server, name) {
  let killed = 0;
  const timer = setInterval(() => {
    const pids = server.lines.map((line) => new RegExp(`mcp server started server=${name} pid=(\\d+)`).exec(line)?.[1]).filter(Boolean);
    if (pids.length <= killed) return;
    killed = pids.length;
    try { process.kill(Number(pids.at(-1)), 'SIGKILL'); } catch { /* it has ended by itself */ }
  }, 500);
  return () => { clearInterval(timer); return killed; };
}

for (const [revision, era, count] of [['2025-11-25', 'sessions', 30], ['2026-07-28', 'auto', 37]]) {
  test(`${revision}: all ${count} scored scenarios`, async (t) => {
    const fixtures = new Child(process.execPath, [path.join(here, 'programs/fixtures.mjs')]);
    t.after(() => fixtures.stop());
    const [, port] = await fixtures.line(/listening (\d+)/);
    const server = await startServer(t, { config: { mcp: {
      auth: 'none', prefix: false, backoff: '50ms', backoff_max: '200ms', servers: [{ name: 'suite', url: `http://127.0.0.1:${port}/mcp`, era }, sdk('victim', 'modern', { prefix: 'true' })],
    } } });
    server.expectLog(/mcp server (ended|away|died)\b.* server=victim|server=victim/);
    for (const name of ['suite', 'victim']) await ready(server, name);
    const out = fs.mkdtempSync(path.join(server.dir, 'conformance-'));
    const stop = killing(server, 'victim');
    const output = await new Promise((resolve) => {
      execFile(process.execPath, [suite, 'server', '--url', `${server.url}/mcp`, '--requirements', revision, '-o', out, '--expected-failures', path.join(here, 'conformance_expected.yaml')],
        { timeout: 240000, maxBuffer: 1 << 26 }, (error, stdout, stderr) => resolve(`${stdout}${stderr}\nexit ${error?.code ?? 0}`));
    });
    assert.ok(stop() > 0, 'the other server was never killed');
    const [scored] = output.split('Not scored');
    assert.match(output, /exit 0$/, output);
    assert.ok(scored.split('\n').filter((line) => line.startsWith('✓')).length >= count, output);
    await server.stop();
    t.diagnostic(scored.match(/Total: .*/)?.[0] ?? '');
  });
}
