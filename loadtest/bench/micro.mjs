// micro - parts without a server around them: limiter decisions, bus round trips.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { build } from '../../t/wire/lib/process.mjs';

export default async function micro() {
  process.stdout.write(execFileSync(path.join(build, 'parley_micro'), { encoding: 'utf8' }).replace(/^(?=.)/gm, '  '));
}
