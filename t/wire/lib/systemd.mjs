// systemd - a real one, in a world of its own over the machine's files: what is installed there is gone afterwards.
//
//   const machine = await startSystemd(t);      machine.skip says why there is none
//   await machine.run('dpkg', '-i', file); machine.file('/etc/parley/parley.yaml')
import { execFile, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child } from './process.mjs';
import { waitFor } from './wait.mjs';

const script = fileURLToPath(new URL('systemd.sh', import.meta.url));

class Systemd extends Child {
  constructor(dir) {
    super(script, [dir]);
    this.dir = dir;
  }

  /** Runs a program there: {code, out}; out is both streams. */
  try(...command) {
    return new Promise((resolve) => {
      execFile('nsenter', ['--target', String(this.first), '--mount', '--pid', '--cgroup', '--ipc', '--uts', '--root', '--wd', '--', ...command],
        { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' }, timeout: 60000 },
        (error, out, err) => resolve({ code: error ? error.code ?? -1 : 0, out: out + err }));
    });
  }

  /** The same, and it must succeed: what it said. */
  async run(...command) {
    const { code, out } = await this.try(...command);
    if (code !== 0) throw new Error(`${command.join(' ')}: exit status ${code}\n${out}`);
    return out;
  }

  /** A property of a unit. */
  async property(unit, name) {
    return (await this.run('systemctl', 'show', '--value', '--property', name, unit)).trim();
  }

  /** The path, from outside, of a file there. */
  file(name) {
    return `/proc/${this.first}/root${name}`;
  }

  async end() {
    await this.stop('SIGKILL');
    // Its processes die with the first of them; the cgroup can be removed when they are gone.
    if (this.cgroup) {
      await waitFor(() => {
        try {
          execFileSync('find', [this.cgroup, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+'], { stdio: 'ignore' });
        } catch {
          // somebody is still dying
        }
        return !fs.existsSync(this.cgroup);
      }, 'end of everything in the cgroup');
    }
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/** skip is set, and nothing else, where it cannot run: no root, no systemd, a kernel or a container that forbids it. */
export async function startSystemd(t) {
  if (process.getuid() !== 0) return { skip: 'not root' };
  if (!fs.existsSync('/lib/systemd/systemd')) return { skip: 'no systemd' };
  const tree = fs.readFileSync('/proc/mounts', 'utf8').split('\n').map((line) => line.split(' ')).find(([, , type]) => type === 'cgroup2')?.[1];
  if (!tree) return { skip: 'no cgroup2' };
  const machine = new Systemd(fs.mkdtempSync(path.join(os.tmpdir(), 'parley-systemd-')));
  machine.cgroup = path.join(tree, `parley-${machine.pid}`);
  t?.after(() => machine.end());
  const first = () => {
    if (machine.status) return -1;
    // The namespace's first process is the only child of unshare.
    const [pid] = fs.readFileSync(`/proc/${machine.pid}/task/${machine.pid}/children`, 'utf8').split(' ').filter(Boolean);
    return pid && fs.readFileSync(`/proc/${pid}/comm`, 'utf8') === 'systemd\n' ? Number(pid) : 0;
  };
  machine.first = await waitFor(first, 'start of systemd');
  if (machine.first < 0) return { skip: `a systemd of our own is not possible here: ${machine.lines.at(-1)}` };
  await waitFor(async () => /running|degraded/.test((await machine.try('systemctl', 'is-system-running')).out), 'systemd at work', 20000);
  return machine;
}
