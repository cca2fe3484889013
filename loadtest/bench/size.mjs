// size - of the package, as `make deb` makes it, and of the image, as `make image` has made it last.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { root } from '../../t/wire/lib/process.mjs';
import { print } from './lib.mjs';

/** Of the recipe's last stage: du of its root directory; the base that it began with. */
function imageSize() {
  const dir = path.join(root, 'build/image');
  const stages = fs.existsSync(dir) ? fs.readdirSync(dir).filter((name) => /^stage\d+$/.test(name)) : [];
  const last = stages.sort().at(-1);
  if (!last) return null;
  const megabytes = (...args) => Number(execFileSync('du', ['-sxm', '--exclude=./proc', '--exclude=./dev', ...args], { encoding: 'utf8' }).split('\t')[0]);
  return { all: megabytes(path.join(dir, last)), base: Math.round(fs.statSync(path.join(dir, 'base.tar')).size / 1e6) };
}

export default async function size() {
  const said = execFileSync('make', ['deb'], { cwd: root, encoding: 'utf8' });
  const [, file, packed, installed] = /DEB +(\S+) +(\d+) KiB, (\d+) KiB installed/.exec(said);
  print('Debian package', Number(packed), 'KiB', path.basename(file));
  print('  installed', Number(installed), 'KiB', 'parleyd, parley_load, mock_llm, documents');
  const image = imageSize();
  if (image) print('image, root directory', image.all, 'MB', `with ${image.base} MB of Debian's bare system, by debootstrap`);
  else print('image, root directory', '-', 'MB', 'run `make image` before');
}
