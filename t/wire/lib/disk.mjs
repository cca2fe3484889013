// disk - file systems of their own that are soon full.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** A folder that is gone with the test, with what is mounted there. */
export function tempDir(t, name) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), name));
  t.after(() => {
    execFileSync('sh', ['-c', 'umount -l "$0" 2>/dev/null; rm -rf "$0"', dir]);
  });
  return dir;
}

/** A file system of its own, of that size; false: this machine does not let us. */
export function mountSmall(dir, size) {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'none', dir], { stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
}

/** Fills the file system to the last byte. */
export function fill(file) {
  const fd = fs.openSync(file, 'w');
  for (const size of [65536, 4096, 1]) {
    try {
      for (;;) fs.writeSync(fd, Buffer.alloc(size));
    } catch (e) {
      assert.equal(e.code, 'ENOSPC');
    }
  }
  fs.closeSync(fd);
}
