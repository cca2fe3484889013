// tls - a server with a certificate, and what a client needs to talk to it.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { startServer } from './server.mjs';

/** A certificate for localhost, by openssl. */
export function certificate(dir, name) {
  const files = { certificate: path.join(dir, `${name}.crt`), key: path.join(dir, `${name}.key`) };
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', files.key, '-out', files.certificate], { stdio: 'pipe' });
  return files;
}

/** tls: more options of that section; options: as startServer's (no mock unless it has one), workers 2 unless it says otherwise. */
export async function startTls(t, tls = {}, options = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-tls-'));
  const files = certificate(dir, 'first');
  const config = { workers: 2, ...options.config, tls: { ...files, listen: ['127.0.0.1:0'], ...tls } };
  const secure = await startServer(t, { mock: false, ...options, config });
  const clean = () => fs.rmSync(dir, { recursive: true, force: true });
  if (t) t.after(clean); // after the server's end
  else process.on('exit', clean);
  const address = (await secure.line(/listening address=(\S+) kind=(?:https|tls)/))[1];
  return { secure, dir, files, url: `https://${address}`, port: Number(address.split(':').pop()), ca: () => fs.readFileSync(files.certificate) };
}
