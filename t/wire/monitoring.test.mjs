// What etc/ gives to those who watch: alarms and the dashboard, held against what /metrics of the real server says.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { before, test } from 'node:test';
import { root } from './lib/process.mjs';
import { parseMetrics } from './lib/metrics.mjs';
import { newSession, startServer, streamTurn } from './lib/server.mjs';

const file = (name) => path.join(root, 'etc', name);
const read = (name) => fs.readFileSync(file(name), 'utf8');
const promtool = (...args) => spawnSync('promtool', args, { encoding: 'utf8', cwd: root });
const has_promtool = spawnSync('promtool', ['--version']).status === 0;

/** Names and labels as they are told: {name: Set of label names}; histograms under the names of their series. */
let exposed;
/** The values of the labels that have a fixed list (common/metric_label.tbl): {label: Set}. */
const listed = {};

before(async (t) => {
  const server = await startServer(t);
  const session = await newSession(server);
  await streamTurn(server, session.id, { input: 'hello' });
  exposed = {};
  for (const family of Object.values(parseMetrics((await server.request('/metrics')).text))) {
    const suffixes = family.type === 'HISTOGRAM' ? ['_bucket', '_sum', '_count'] : [''];
    for (const suffix of suffixes) exposed[family.name + suffix] = family;
  }
  for (const [, label, values] of read('../common/metric_label.tbl').matchAll(/^LABEL_LIST\(\w+, "(\w+)",([\s\S]*?)\)\)$/gm)) {
    listed[label] ??= new Set();
    for (const [, value] of values.matchAll(/"([^"]+)"/g)) listed[label].add(value);
  }
  assert.ok(listed.outcome.has('worker_lost') && listed.status.has('503'), 'the lists of labels were found');
});

/** Every metric of an expression exists, and every value that a fixed label is compared with. */
function checkExpression(expr, where) {
  const names = [...expr.matchAll(/\bparley_[a-z_]+/g)].map(([name]) => name);
  for (const name of names) assert.ok(name in exposed, `${where}: there is no metric ${name}`);
  for (const [, label, operator, text] of expr.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g)) {
    if (!(label in listed)) continue;
    for (const value of operator.includes('~') ? text.split('|') : [text]) {
      assert.ok(listed[label].has(value), `${where}: ${label} is never ${value}`);
    }
  }
  return names.length;
}

/** The `expr` of every rule; the folded style of YAML is the only one that spans lines. */
function rulesOf(text) {
  return text.split(/^ {6}- alert: /m).slice(1).map((rule) => ({
    name: rule.split('\n')[0],
    expr: /^ {8}expr: (?:>-\n((?: {10}.*\n)+)|(.*))/m.exec(rule).slice(1).join(' '),
    text: rule,
  }));
}

test('every alarm names metrics, labels and values that exist, and says what to do', () => {
  const rules = rulesOf(read('prometheus/alerts.yml'));
  assert.ok(rules.length >= 15);
  for (const { name, expr, text } of rules) {
    if (name !== 'ParleyDown') assert.ok(checkExpression(expr, name) > 0, `${name} asks for no metric: ${expr}`);
    assert.match(text, /severity: (page|warning)/, name);
    assert.match(text, /summary: ".+"/, name);
    assert.match(text, /action: ".+"/, name);
  }
});

test('there is an alarm for each thing that must not go unseen', () => {
  const all = rulesOf(read('prometheus/alerts.yml')).map(({ expr }) => expr).join('\n');
  for (const wanted of ['parley_connections_max', 'parley_provider_pool_max', 'parley_connections_rejected_total', '(parley_provider_waiting) > 1000',
    'parley_provider_breaker_state', '> 0.05', 'histogram_quantile(0.95', 'parley_backplane_up', 'parley_worker_restarts_total', 'parley_mcp_server_up', 'parley_mcp_restarts_total', 'parley_mcp_calls_total', 'parley_events_gaps_total']) {
    assert.ok(all.includes(wanted), wanted);
  }
});

test('promtool accepts the alarms, and they fire when they should', { skip: !has_promtool && 'no promtool' }, () => {
  for (const args of [['check', 'rules', file('prometheus/alerts.yml')], ['test', 'rules', file('prometheus/alerts_test.yml')]]) {
    const { status, stdout, stderr } = promtool(...args);
    assert.equal(status, 0, `${stdout}${stderr}`);
  }
});

test('every panel of the dashboard asks for what exists, and has its own place', (t) => {
  const dashboard = JSON.parse(read('grafana/parley.json'));
  const panels = dashboard.panels;
  const taken = new Set(), ids = new Set(), exprs = [];
  for (const panel of panels) {
    assert.ok(!ids.has(panel.id), `panel ${panel.id} twice`);
    ids.add(panel.id);
    const { x, y, w, h } = panel.gridPos;
    assert.ok(x + w <= 24, `${panel.title} is too wide`);
    for (let at = 0; at < w * h; at++) {
      const cell = `${x + (at % w)},${y + Math.floor(at / w)}`;
      assert.ok(!taken.has(cell), `${panel.title} lies over another panel`);
      taken.add(cell);
    }
    if (panel.type === 'row') continue;
    assert.ok(panel.targets.length > 0, panel.title);
    for (const { expr, datasource, refId } of panel.targets) {
      assert.ok(checkExpression(expr, panel.title) > 0);
      assert.ok(expr.includes('$instance'), `${panel.title}: ${expr} is of all hosts, whatever was chosen`);
      assert.equal(datasource.uid, '${datasource}');
      exprs.push({ title: `${panel.title} ${refId}`, expr });
    }
  }
  assert.ok(exprs.length > 30);
  for (const variable of dashboard.templating.list.filter(({ type }) => type === 'query')) checkExpression(variable.query, variable.name);
  if (!has_promtool) return t.diagnostic('no promtool: the queries were not parsed');
  // promtool knows no command for an expression; a recording rule is one.
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'parley-grafana-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const rules = exprs.map(({ expr }, i) => ({ record: `panel:${i}`, expr: expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*') }));
  fs.writeFileSync(path.join(dir, 'rules.yml'), JSON.stringify({ groups: [{ name: 'panels', rules }] }));
  const { status, stdout, stderr } = promtool('check', 'rules', path.join(dir, 'rules.yml'));
  assert.equal(status, 0, `${stdout}${stderr}`);
});

test('no metric is forgotten: each is in a panel or an alarm', () => {
  const text = read('prometheus/alerts.yml') + read('grafana/parley.json');
  const unseen = [...new Set(Object.values(exposed).map(({ name }) => name))].filter((name) => !text.includes(name) && name.startsWith('parley_'));
  assert.deepEqual(unseen, [], 'a new metric wants a panel');
});
