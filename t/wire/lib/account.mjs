// account - who runs the databases of the tests: PostgreSQL refuses to be root.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** {uid, gid} of the account `postgres` when we are root, else nothing: we are good enough ourselves. */
export function databaseAccount() {
  if (process.getuid() !== 0) return {};
  const line = fs.readFileSync('/etc/passwd', 'utf8').split('\n').find((entry) => entry.startsWith('postgres:'));
  const [, , uid, gid] = line.split(':');
  return { uid: Number(uid), gid: Number(gid) };
}

/** A temporary folder that belongs to the account. */
export function folderOf(account, name) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), `parley-${name}-`));
  if (account.uid !== undefined) fs.chownSync(dir, account.uid, account.gid);
  return dir;
}
