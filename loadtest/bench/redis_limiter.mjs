// redis_limiter - decisions per second of the limiter over Redis, in a pipeline, and its error over 8 workers of 2 hosts; beside what Redis itself can.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { build } from '../../t/wire/lib/process.mjs';
import { startRedis } from '../../t/wire/lib/redis.mjs';
import { cpuSeconds, print } from './lib.mjs';

export default async function redis_limiter() {
  const redis = await startRedis(null);
  const before = cpuSeconds([redis.child.pid]);
  const out = execFileSync(path.join(build, 'parley_micro'), [redis.unix_url], { encoding: 'utf8' });
  process.stdout.write(out.replace(/^(?=.)/gm, '  '));
  const calls = Number(/calls=(\d+)/.exec(await redis.command('INFO', 'commandstats').then((text) => /cmdstat_evalsha:\S*/.exec(text)[0]))[1]);
  print('decisions by Redis, all together', calls / (cpuSeconds([redis.child.pid]) - before), 'per CPU-s', 'of Redis; aim 50,000: it has one core');
  // What a pipeline can at all: a command that does next to nothing, from one client.
  const bench = execFileSync('redis-benchmark', ['-s', redis.socket, '-q', '-c', '1', '-P', '256', '-n', '1000000', '-t', 'incr'], { encoding: 'utf8' });
  print('INCR by redis-benchmark, one client, as deep', Number(/INCR: ([\d.]+)/.exec(bench)[1]), '/s', 'a command, where a decision is a script');
  await redis.stop();
}
