// start - from exec to the last worker accepting; the size of the binary.
import fs from 'node:fs';
import path from 'node:path';
import { build } from '../../t/wire/lib/process.mjs';
import { startMock, startServer } from '../../t/wire/lib/server.mjs';
import { print, rounds } from './lib.mjs';

export default async function start() {
  const mock = await startMock(null);
  const took_ms = (workers) => rounds(5, async () => {
    const server = await startServer(null, { mock, config: { workers } });
    const time = (line) => Date.parse(line.split(' ')[0]);
    const ready = Math.max(...server.lines.filter((line) => /worker ready/.test(line)).map(time));
    const began = server.spawned_at;
    await server.stop();
    return ready - began;
  });
  print('exec to 1 worker ready, fresh database', await took_ms(1), 'ms', 'median of 5');
  print('exec to 4 workers ready, fresh database', await took_ms(4), 'ms', 'median of 5; aim under 100');
  await mock.stop();
  print('parleyd, as built (with debug information)', fs.statSync(path.join(build, 'parleyd')).size / 1024, 'KiB');
  print('parleyd, code and data', await strippedSize() / 1024, 'KiB');
}

async function strippedSize() {
  const { execFileSync } = await import('node:child_process');
  const [, line] = execFileSync('size', [path.join(build, 'parleyd')], { encoding: 'utf8' }).split('\n');
  return line.trim().split(/\s+/).slice(0, 2).reduce((sum, n) => sum + Number(n), 0);
}
